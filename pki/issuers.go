package pki

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.step.sm/crypto/x509util"
)

const (
	// backdate is how far certificates reach into the past. iPXE accepts
	// 12.5 h of deviation; a machine's clock may be a time zone behind.
	backdate = 24 * time.Hour

	rootLife         = 20 * 365 * 24 * time.Hour
	intermediateLife = 10 * 365 * 24 * time.Hour
)

// issuers are the two certificates that sign.
type issuers struct{ root, intermediate pair }

// issuerFiles in the order in which a first start writes them: whatever is
// present after a crash is a beginning of this list.
func issuerFiles() []string {
	return []string{"root.key", "root.pem", "intermediate.key", "intermediate.pem"}
}

// openGenerations loads all generations and ties them to the store. The first
// is made only while the store has seen no root.
func (a *Authority) openGenerations(ctx context.Context, cfg Config) error {
	records, err := a.readRecords(ctx)
	if err != nil {
		return err
	}
	outer, err := a.openExternal(cfg)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		if err := a.first(ctx, outer); err != nil {
			return err
		}
	} else if err := a.reopen(ctx, records); err != nil {
		return err
	}
	if err := a.takeUp(ctx); err != nil {
		return err
	}
	if err := a.followExternal(ctx, outer); err != nil {
		return err
	}
	return a.openSigners(ctx, outer)
}

// first makes generation 1.
func (a *Authority) first(ctx context.Context, outer *external) error {
	if outer != nil {
		return a.addExternal(ctx, 1, outer)
	}
	if err := a.dir.checkIssuerFiles(true); err != nil {
		return err
	}
	ca, err := a.dir.ensureIssuers(1, a.now())
	if err != nil {
		return err
	}
	r := generationRecord{Number: 1, Root: fingerprintOf(ca.root.cert), Source: SourceOwn, Created: a.now().UTC()}
	if err := a.writeRecord(ctx, &r, false); err != nil {
		return err
	}
	a.log.InfoContext(ctx, "boot pki has a new state, its root is recorded", "stage", "pki")
	return a.reopen(ctx, []generationRecord{r})
}

// reopen loads recorded generations.
func (a *Authority) reopen(ctx context.Context, records []generationRecord) error {
	var all []*generation
	for _, r := range records {
		if r.Source == SourceOwn && !r.Dropped {
			if err := a.dirOf(r.Number).checkIssuerFiles(false); err != nil {
				return err
			}
		}
		g, err := a.openGeneration(r)
		if err != nil {
			return err
		}
		all = append(all, g)
		if r.revision > 0 {
			continue
		}
		// A state from before there were generations.
		r.Created = g.root.NotBefore.Add(backdate).UTC()
		g.created = r.Created
		if err := a.writeRecord(ctx, &r, false); err != nil {
			return err
		}
	}
	a.current.Store(newGenerations(all))
	return nil
}

// lost names the remedy for a file that cannot be made again.
func lost(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("machines trust this PKI and a file of it is missing, restore it from a backup: %w", err)
	}
	return err
}

func fingerprintOf(cert *x509.Certificate) Digest { return sha256.Sum256(cert.Raw) }

// checkIssuerFiles accepts a complete set, and on a fresh store also what a
// first start leaves when it is cut short.
func (d keyDir) checkIssuerFiles(fresh bool) error {
	missing := ""
	for _, file := range issuerFiles() {
		there, err := d.has(file)
		switch {
		case err != nil:
			return err
		case !there && !fresh:
			return fmt.Errorf("%s is missing, but machines trust this PKI: restore it from a backup", d.path(file))
		case !there && missing == "":
			missing = file
		case there && missing != "":
			return fmt.Errorf("%s is missing while %s is there: restore it from a backup", d.path(missing), file)
		}
	}
	return nil
}

// ensureIssuers loads the issuers of a generation, and makes what is missing.
func (d keyDir) ensureIssuers(number int, now time.Time) (issuers, error) {
	root, err := d.ensureIssuer("root", func(key crypto.Signer) (*x509.Certificate, error) {
		return newRoot(number, key, now)
	})
	if err != nil {
		return issuers{}, err
	}
	intermediate, err := d.ensureIssuer("intermediate", func(key crypto.Signer) (*x509.Certificate, error) {
		return newIntermediate(root, key, now)
	})
	if err != nil {
		return issuers{}, err
	}
	return issuers{root, intermediate}, d.checkIssuers(root.cert, intermediate.cert)
}

func (d keyDir) checkIssuers(root, intermediate *x509.Certificate) error {
	if err := root.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("%s is not a root certificate: %w", d.path("root.pem"), err)
	}
	if err := intermediate.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("%s was not issued by root.pem, restore both from the same backup: %w", d.path("intermediate.pem"), err)
	}
	return nil
}

// ensureIssuer loads name's pair and makes the halves that are missing, the
// key first: a key without a certificate is trusted by nobody and is taken up.
func (d keyDir) ensureIssuer(name string, sign func(crypto.Signer) (*x509.Certificate, error)) (pair, error) {
	if err := d.ensureKey(name); err != nil {
		return pair{}, err
	}
	there, err := d.has(name + ".pem")
	if err != nil {
		return pair{}, err
	}
	if !there {
		key, err := d.readKey(name)
		if err != nil {
			return pair{}, err
		}
		cert, err := sign(key)
		if err != nil {
			return pair{}, err
		}
		if err := d.writeCerts(name, cert); err != nil {
			return pair{}, err
		}
	}
	return d.readPair(name)
}

func (d keyDir) ensureKey(name string) error {
	there, err := d.has(name + ".key")
	if there || err != nil {
		return err
	}
	key, err := d.rsa()
	if err != nil {
		return err
	}
	return d.writeKey(name, key)
}

// newRoot refuses a clock that was never set: such a root would have expired
// before the first machine sees it. The first root may have one issuer below
// it; a later one certifies the older roots as well, and they have theirs.
func newRoot(number int, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	if now.Before(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		return nil, fmt.Errorf("the clock says %s: set it before the first start", now.Format(time.DateTime))
	}
	tpl := issuerTemplate("root", key, now, now.Add(rootLife))
	tpl.MaxPathLen = 1
	if number > 1 {
		tpl.MaxPathLen = -1 // no limit
	}
	cert, err := x509util.CreateCertificate(tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root: %w", err)
	}
	return cert, nil
}

func newIntermediate(root pair, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	end := now.Add(intermediateLife)
	if end.After(root.cert.NotAfter) {
		end = root.cert.NotAfter
	}
	if !end.After(now) {
		return nil, fmt.Errorf("the root expired at %s: rotate it with nestctl ca rotate --root", root.cert.NotAfter.Format(time.DateTime))
	}
	tpl := issuerTemplate("intermediate", key, now, end)
	tpl.MaxPathLenZero = true
	cert, err := x509util.CreateCertificate(tpl, root.cert, key.Public(), root.key)
	if err != nil {
		return nil, fmt.Errorf("sign intermediate: %w", err)
	}
	return cert, nil
}

// crossCertify has a root vouch for an older one: with the same name and key as
// that one has. The older root's server certificates are then good for clients
// that trust the new one alone. It cannot be the other way round: roots of
// generation 1 allow only one issuer below them.
func crossCertify(older *x509.Certificate, root pair) (*x509.Certificate, error) {
	end := older.NotAfter
	if end.After(root.cert.NotAfter) {
		end = root.cert.NotAfter
	}
	cert, err := x509util.CreateCertificate(&x509.Certificate{
		RawSubject: older.RawSubject, SubjectKeyId: older.SubjectKeyId,
		NotBefore: root.cert.NotBefore, NotAfter: end,
		KeyUsage: older.KeyUsage, BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1,
	}, root.cert, older.PublicKey, root.key)
	if err != nil {
		return nil, fmt.Errorf("certify the older root: %w", err)
	}
	return cert, nil
}

// issuerTemplate names the certificate after its key, so that the roots of two
// appliances can be told apart on a console.
func issuerTemplate(role string, key crypto.Signer, now, end time.Time) *x509.Certificate {
	var sum Digest
	if public, ok := key.Public().(*rsa.PublicKey); ok { // all of ours are
		sum = sha256.Sum256(x509.MarshalPKCS1PublicKey(public))
	}
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("nestboot boot %s %x", role, sum[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}
