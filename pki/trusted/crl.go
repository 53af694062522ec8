package trusted

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/nestboot/nestboot/pki"
)

// Limits of a revocation list.
const (
	maxCRL   = 16 << 20 // bytes of a file or answer
	largeCRL = 1 << 20  // what is larger is read one at a time
	maxLists = 16       // in one file
)

// lists are the revocation lists of an entry by their issuers (issuerOf). They
// never change: a newer one makes another.
type lists map[pki.Digest]*list

// list is the revocation list of one issuer.
type list struct {
	raw        []byte // DER
	issuer     string
	number     *big.Int            // grows with each list; nil: it has none
	this, next time.Time           // when it was made, when the next one is due
	revoked    map[string]struct{} // serial numbers, big-endian
}

// stale reports whether the list has ended. One that names no end is stale at
// once: it might be of any age.
func (l *list) stale(at time.Time) bool { return l.next.IsZero() || at.After(l.next) }

// endsSoon reports whether the last quarter of the list's life has begun, or its
// last day: its successor should be there.
func (l *list) endsSoon(at time.Time) bool {
	return !l.stale(at) && at.After(l.next.Add(-min(24*time.Hour, l.next.Sub(l.this)/4)))
}

// with returns the list with more serial numbers on it.
func (l *list) with(more map[string]struct{}) *list {
	longer := *l
	longer.revoked = maps.Clone(l.revoked)
	maps.Copy(longer.revoked, more)
	return &longer
}

// maxAhead is how far an authority's clock may be ahead of ours: a time zone
// taken for another, and an hour.
const maxAhead = 25 * time.Hour

func fromTheFuture(this, now time.Time) bool { return this.After(now.Add(maxAhead)) }

// olderThan goes by the second in which a list was made, and within it by its
// number.
func (l *list) olderThan(other *list) bool {
	if l.this.Equal(other.this) && l.number != nil && other.number != nil {
		return l.number.Cmp(other.number) < 0
	}
	return l.this.Before(other.this)
}

// has reports whether a certificate with this serial number in hex is on it.
func (l *list) has(serial string) bool {
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return false // no certificate has it
	}
	_, on := l.revoked[string(n.Bytes())]
	return on
}

// askLists looks for each certificate of the path on its issuer's list. Unless
// the entry accepts stale lists, each issuer must have a current one.
func (m *member) askLists(id pki.Identity, at time.Time) (code, reason string) {
	if len(id.Path) == 0 {
		return pki.CodeWrongUsage, "it is not known who issued it"
	}
	lists := *m.lists.Load()
	var ended *list
	missing := -1
	for i, cert := range id.Path {
		l, ok := lists[cert.Issuer]
		if !ok {
			if missing < 0 {
				missing = i
			}
			continue
		}
		if l.has(cert.Serial) {
			return pki.CodeRevoked, fmt.Sprintf("%s on the revocation list of %s of %s", who(id, i), l.issuer, stamp(l.this))
		}
		if l.stale(at) {
			ended = l
		}
	}
	switch {
	case m.spec.CRL.Stale == StaleAccept:
		return "", ""
	case missing > 0:
		return pki.CodeStaleCRL, fmt.Sprintf("there is no revocation list of %s, which issued %s: put it into the file of %s beside the other, or register the latter without its issuer",
			id.Path[missing].By, id.Path[missing-1].By, m.title())
	case missing == 0:
		return pki.CodeStaleCRL, fmt.Sprintf("there is no revocation list of its issuer %s: publish one where %s looks for it, and register that issuer with it",
			id.Path[0].By, m.title())
	case ended != nil:
		return pki.CodeStaleCRL, ended.endReason()
	}
	return "", ""
}

// listed returns a registered authority that by its name issued c, another one,
// and that one's list, both nil if there is none.
func (m *member) listed(ls *lists, c *x509.Certificate) (issuer *x509.Certificate, l *list) {
	if slices.Contains(m.anchors, c) {
		return nil, nil // it is trusted by itself
	}
	for _, p := range m.certs {
		if p == c || !bytes.Equal(p.RawSubject, c.RawIssuer) {
			continue
		}
		issuer = p
		if found := (*ls)[issuerOf(p)]; found != nil {
			return p, found
		}
	}
	return issuer, nil
}

// unlisted is a registered authority which issued another one and of which there
// is no list; nil: there is none.
func (m *member) unlisted() *x509.Certificate {
	lists := m.lists.Load()
	for _, c := range m.certs {
		if issuer, l := m.listed(lists, c); issuer != nil && l == nil {
			return issuer
		}
	}
	return nil
}

func (l *list) endReason() string {
	if l.next.IsZero() {
		return fmt.Sprintf("the revocation list of %s does not say when it ends", l.issuer)
	}
	return fmt.Sprintf("the revocation list of %s ended at %s: publish a new one", l.issuer, stamp(l.next))
}

// parseLists reads a file with revocation lists, in PEM or DER, of which at
// least one must be of one of the issuers. One that is theirs by its name but
// not by its signature spoils all.
func parseLists(data []byte, issuers []*x509.Certificate, now time.Time) (lists, error) {
	if len(data) > maxCRL {
		return nil, fmt.Errorf("it is larger than %d bytes", maxCRL)
	}
	ders, err := splitLists(data)
	if err != nil {
		return nil, err
	}
	found, foreign := lists{}, ""
	for i, der := range ders {
		crl, entries, err := splitList(der)
		if err != nil {
			return nil, fmt.Errorf("list %d is damaged: %w", i+1, err)
		}
		if err := found.take(crl, entries, issuers, now); errors.Is(err, errForeign) {
			foreign = crl.Issuer.String()
		} else if err != nil {
			return nil, fmt.Errorf("list %d, of %.120q: %w", i+1, crl.Issuer.String(), err)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("it is the list of another authority: of %.120q", foreign)
	}
	return found, nil
}

func splitLists(data []byte) ([][]byte, error) {
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return [][]byte{data}, nil
	}
	var ders [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("it holds a %.40q, want X509 CRL", block.Type)
		}
		if len(ders) == maxLists {
			return nil, fmt.Errorf("it holds more than %d lists", maxLists)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 {
		return nil, errors.New("it holds no revocation list")
	}
	return ders, nil
}

var errForeign = errors.New("it is the list of another authority")

// take enters a list for the one of the issuers that made it. Several may have
// its name, with different keys.
func (ls lists) take(crl *x509.RevocationList, entries []byte, issuers []*x509.Certificate, now time.Time) error {
	result := errForeign
	for _, c := range issuers {
		if !bytes.Equal(c.RawSubject, crl.RawIssuer) {
			continue
		}
		err := checkList(crl, c, now)
		if err != nil {
			if errors.Is(result, errForeign) {
				result = err
			}
			continue
		}
		l, err := newList(crl, entries)
		if err != nil {
			return err
		}
		if former, ok := ls[issuerOf(c)]; !ok || former.olderThan(l) {
			ls[issuerOf(c)] = l
		}
		return nil
	}
	return result
}

// checkList refuses forged lists, and those that do not speak for all of the
// issuer's certificates.
func checkList(crl *x509.RevocationList, issuer *x509.Certificate, now time.Time) error {
	if fromTheFuture(crl.ThisUpdate, now) {
		return fmt.Errorf("it was made at %s, which is yet to come: it would outlast all lists until then; set the authority's clock, or this one's", stamp(crl.ThisUpdate))
	}
	if crl.SignatureAlgorithm == x509.SHA1WithRSA || crl.SignatureAlgorithm == x509.ECDSAWithSHA1 {
		return errors.New("it is signed with SHA-1, which is not accepted")
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("its signature is not the authority's: %w", err)
	}
	for _, x := range crl.Extensions {
		if x.Critical {
			return fmt.Errorf("it has the critical extension %s: only full lists of one issuer are understood", x.Id)
		}
		if x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 27}) {
			return errors.New("it is a delta list: only full lists are understood")
		}
	}
	return nil
}

func newList(crl *x509.RevocationList, entries []byte) (*list, error) {
	revoked, err := readEntries(entries)
	if err != nil {
		return nil, err
	}
	return &list{
		raw: bytes.Clone(crl.Raw), issuer: fmt.Sprintf("%.120q", crl.Issuer.String()), number: crl.Number,
		this: crl.ThisUpdate, next: crl.NextUpdate, revoked: revoked,
	}, nil
}

// merge returns the lists with newer ones put in. One that is older than what
// is there is refused: whoever can replay it could undo a revocation. If its
// number is the higher one all the same, one of the two was made by a wrong
// clock, and what either revokes is revoked.
func (ls *lists) merge(newer lists, now time.Time) (*lists, error) {
	merged, err := maps.Clone(*ls), error(nil)
	if merged == nil {
		merged = lists{}
	}
	for issuer, l := range newer {
		former, ok := merged[issuer]
		if ok && l.olderThan(former) && !fromTheFuture(former.this, now) {
			if l.number != nil && former.number != nil && l.number.Cmp(former.number) > 0 {
				merged[issuer] = former.with(l.revoked)
			}
			then := "the newer one goes on"
			if former.stale(now) {
				then = "that one counts and has ended, publish a new one"
			}
			err = fmt.Errorf("the list of %s is of %s, and one of %s was seen already: %s", l.issuer, stamp(l.this), stamp(former.this), then)
			continue
		}
		merged[issuer] = l
	}
	return &merged, err
}
