package depot

import (
	"fmt"
	"os"
	"time"

	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// Check refuses a version below the highest that was here (T29). One that is here
// still may be pulled again.
func (d *Depot) Check(r release.Ref, order string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.check(r, order)
}

// CheckCurrent refuses a version that a mirror calls the current one, if a higher
// one was here, whether it is here itself or not (T29).
func (d *Depot) CheckCurrent(r release.Ref, order string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checkNewest(r, order)
}

func (d *Depot) check(r release.Ref, order string) error {
	if _, err := os.Stat(d.manifest(r)); err == nil {
		return nil
	}
	return d.checkNewest(r, order)
}

func (d *Depot) checkNewest(r release.Ref, order string) error {
	if !d.older(r, order) {
		return nil
	}
	return &signature.Refusal{Code: signature.CodeDowngrade, Reason: fmt.Sprintf(
		"%s is older than %s, which was here: a mirror may be holding back what is newer; with --force it comes in all the same, and counts as the newest from then on",
		r, d.state.Newest[line(r)])}
}

// checkSigned refuses what has the number of a newer release and was signed before
// it: a signature beside a file does not say of which version the file is.
func (d *Depot) checkSigned(m Manifest) error {
	newest := d.state.Signed[line(m.Ref)]
	if m.Proof.Signed == nil || d.older(m.Ref, m.Order) || !m.Proof.Signed.At.Before(newest) {
		return nil
	}
	return &signature.Refusal{Code: signature.CodeDowngrade, Reason: fmt.Sprintf(
		"%s was signed on %s, and %s, which was here and is not newer, on %s: a mirror may be giving older files a newer number; with --force they come in all the same",
		m.Ref, m.Proof.Signed.At.Format(time.DateOnly), d.state.Newest[line(m.Ref)], newest.Format(time.DateOnly))}
}

// older reports a version below the highest that was here. What cannot be compared
// is below.
func (d *Depot) older(r release.Ref, order string) bool {
	newest := d.state.Newest[line(r)]
	return newest != "" && newest != r.Version && !release.Newer(order, r.Version, newest)
}

// mark writes down that a release is the newest of its line, if it is, or if the
// operator has forced it in, who then knows that what is above is wrong.
func (d *Depot) mark(m Manifest, force bool) error {
	if !force && d.older(m.Ref, m.Order) {
		return nil
	}
	d.state.Newest[line(m.Ref)] = m.Version
	delete(d.state.Signed, line(m.Ref))
	if m.Proof.Signed != nil {
		d.state.Signed[line(m.Ref)] = m.Proof.Signed.At
	}
	return d.saveState()
}

// line is what versions are compared within.
func line(r release.Ref) string { return r.System + ":" + r.Channel + ":" + r.Arch }
