package pki

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nestboot/nestboot/store"
	"go.step.sm/crypto/x509util"
)

const (
	// backdate is how far certificates reach into the past. iPXE accepts
	// 12.5 h of deviation; a machine's clock may be a time zone behind.
	backdate = 24 * time.Hour

	rootLife         = 20 * 365 * 24 * time.Hour
	intermediateLife = 10 * 365 * 24 * time.Hour

	// rootKey is the store key that holds the fingerprint of the root whose
	// machine certificates the store records.
	rootKey = "pki/root"
)

// issuers are the two certificates that sign.
type issuers struct{ root, intermediate pair }

// issuerFiles in the order in which a first start writes them: whatever is
// present after a crash is a beginning of this list.
func issuerFiles() []string {
	return []string{"root.key", "root.pem", "intermediate.key", "intermediate.pem"}
}

// openIssuers loads root and intermediate and ties them to the store. They are
// made only while the store has seen no root.
func (a *Authority) openIssuers(ctx context.Context, s *store.Store) (issuers, error) {
	known, err := s.Get(ctx, rootKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return issuers{}, fmt.Errorf("look up the known root: %w", err)
	}
	fresh := err != nil
	if err := a.dir.checkIssuerFiles(fresh); err != nil {
		return issuers{}, err
	}
	ca, err := a.dir.ensureIssuers(a.now())
	if err != nil {
		return issuers{}, err
	}
	sum := sha256.Sum256(ca.root.cert.Raw)
	fingerprint := hex.EncodeToString(sum[:])
	if fresh {
		a.log.InfoContext(ctx, "boot pki has a new state, its root is recorded", "stage", "pki")
		return ca, recordRoot(ctx, s, fingerprint)
	}
	if string(known.Value) != fingerprint {
		return issuers{}, fmt.Errorf("%s has SHA-256 %s, but machines were enrolled under %s: restore the directory that belongs to this state", a.dir.path("root.pem"), fingerprint, known.Value)
	}
	return ca, nil
}

func recordRoot(ctx context.Context, s *store.Store, fingerprint string) error {
	_, err := s.Commit(ctx, store.Txn{
		If:   []store.Condition{store.Unchanged(rootKey, 0)},
		Then: []store.Op{store.Set(rootKey, []byte(fingerprint))},
	})
	if err != nil {
		return fmt.Errorf("record the root: %w", err)
	}
	return nil
}

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

func (d keyDir) ensureIssuers(now time.Time) (issuers, error) {
	root, err := d.ensureIssuer("root", func(key *rsa.PrivateKey) (*x509.Certificate, error) {
		return newRoot(key, now)
	})
	if err != nil {
		return issuers{}, err
	}
	intermediate, err := d.ensureIssuer("intermediate", func(key *rsa.PrivateKey) (*x509.Certificate, error) {
		return newIntermediate(root, key, now)
	})
	if err != nil {
		return issuers{}, err
	}
	if err := root.cert.CheckSignatureFrom(root.cert); err != nil {
		return issuers{}, fmt.Errorf("%s is not a root certificate: %w", d.path("root.pem"), err)
	}
	if err := intermediate.cert.CheckSignatureFrom(root.cert); err != nil {
		return issuers{}, fmt.Errorf("%s was not issued by root.pem, restore both from the same backup: %w", d.path("intermediate.pem"), err)
	}
	return issuers{root: root, intermediate: intermediate}, nil
}

// ensureIssuer loads name's pair and makes the halves that are missing, the
// key first: a key without a certificate is trusted by nobody and is taken up.
func (d keyDir) ensureIssuer(name string, sign func(*rsa.PrivateKey) (*x509.Certificate, error)) (pair, error) {
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
	key, err := newKey()
	if err != nil {
		return err
	}
	return d.writeKey(name, key)
}

// newRoot refuses a clock that was never set: such a root would have expired
// before the first machine sees it.
func newRoot(key *rsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	if now.Before(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		return nil, fmt.Errorf("the clock says %s: set it before the first start", now.Format(time.DateTime))
	}
	tpl := issuerTemplate("root", key, now, rootLife)
	tpl.MaxPathLen = 1
	cert, err := x509util.CreateCertificate(tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root: %w", err)
	}
	return cert, nil
}

func newIntermediate(root pair, key *rsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	tpl := issuerTemplate("intermediate", key, now, intermediateLife)
	tpl.MaxPathLenZero = true
	cert, err := x509util.CreateCertificate(tpl, root.cert, key.Public(), root.key)
	if err != nil {
		return nil, fmt.Errorf("sign intermediate: %w", err)
	}
	return cert, nil
}

// issuerTemplate names the certificate after its key, so that the roots of two
// appliances can be told apart on a console.
func issuerTemplate(role string, key *rsa.PrivateKey, now time.Time, life time.Duration) *x509.Certificate {
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("nestboot boot %s %x", role, sum[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}
