package pki

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nestboot/nestboot/store"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
)

const (
	certPrefix  = "pki/certs/"
	stateActive = "active"

	// storeTimeout bounds each wait for the store: a machine waits behind it.
	storeTimeout = 5 * time.Second
)

// Digest is a SHA-256. It prints as lower-case hex.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the lower-case hex form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText takes 64 hex digits.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("sha-256 of %d characters, want %d", len(text), hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("sha-256: %w", err)
	}
	return nil
}

// record is what the store keeps of one machine certificate.
type record struct {
	Set         string    `json:"set"`
	Fingerprint Digest    `json:"fingerprint"`
	State       string    `json:"state"` // only stateActive lets the certificate pass
	Issued      time.Time `json:"issued"`
	NotAfter    time.Time `json:"not_after"`
	Generation  int       `json:"generation,omitzero"` // 0: from before there were several
}

func (r record) generation() int { return max(r.Generation, 1) }

// records is the list of machine certificates.
type records struct {
	store  *store.Store
	mirror *store.Mirror
	now    func() time.Time
	change func() // called when certificates are refused from now on

	mu        sync.RWMutex
	condemned map[string]bool // keys of records that are to be revoked
}

func openRecords(ctx context.Context, s *store.Store, now func() time.Time, change func()) (*records, error) {
	mirror, err := s.Mirror(context.WithoutCancel(ctx), certPrefix)
	if err != nil {
		return nil, fmt.Errorf("load issued certificates: %w", err)
	}
	return &records{store: s, mirror: mirror, now: now, change: change, condemned: map[string]bool{}}, nil
}

// find reads memory only.
func (r *records) find(serial string) (record, bool) {
	key := certPrefix + serial
	// Before the mirror is asked: a revocation goes from here to there.
	r.mu.RLock()
	condemned := r.condemned[key]
	r.mu.RUnlock()
	entry, ok := r.mirror.Get(key)
	if !ok {
		return record{}, false
	}
	var rec record
	if err := json.Unmarshal(entry.Value, &rec); err != nil {
		return record{}, false
	}
	if condemned {
		rec.State = stateRevoked
	}
	return rec, true
}

// enter records a certificate that was signed. Server certificates are not
// recorded: nobody asks for them, and their renewal goes on when the store takes
// no writes.
func (r *records) enter(ctx context.Context, leaf *x509.Certificate, generation int) error {
	set, ok := setOf(leaf)
	if !ok {
		return nil
	}
	value, err := json.Marshal(record{
		Set: set, Fingerprint: fingerprintOf(leaf), State: stateActive,
		Issued: r.now().UTC(), NotAfter: leaf.NotAfter, Generation: generation,
	})
	if err != nil {
		return fmt.Errorf("encode record of certificate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	revision, err := r.store.Put(ctx, certPrefix+SerialOf(leaf), value)
	if err != nil {
		return fmt.Errorf("record certificate of set %s: %w", set, err)
	}
	if err := r.mirror.Wait(ctx, revision); err != nil {
		return fmt.Errorf("wait for the record of set %s: %w", set, err)
	}
	return nil
}

// setOf returns the set that a machine certificate was issued to.
func setOf(leaf *x509.Certificate) (string, bool) {
	if len(leaf.URIs) != 1 {
		return "", false
	}
	return strings.CutPrefix(leaf.URIs[0].String(), setURN)
}

// recordsOf are the records of one generation. To its embedded authority they
// are the database, from which this program needs one function: to be told what
// was signed.
type recordsOf struct {
	*records
	generation int
}

var _ db.AuthDB = recordsOf{}

// StoreCertificateChain is called by the embedded authority before a signed
// certificate leaves it.
func (r recordsOf) StoreCertificateChain(_ provisioner.Interface, chain ...*x509.Certificate) error {
	return r.enter(context.Background(), chain[0], r.generation) // the interface hands down no context
}

// errNotSupported answers what the embedded authority offers beyond signing.
var errNotSupported = errors.New("not supported by the boot pki")

// IsRevoked is not supported: Verify decides.
func (r recordsOf) IsRevoked(string) (bool, error) { return false, errNotSupported }

// Revoke is not supported.
func (r recordsOf) Revoke(*db.RevokedCertificateInfo) error { return errNotSupported }

// GetCertificate is not supported: certificates are not kept.
func (r recordsOf) GetCertificate(string) (*x509.Certificate, error) { return nil, errNotSupported }

// UseToken is not supported: there are no provisioners.
func (r recordsOf) UseToken(string, string) (bool, error) { return false, errNotSupported }

// IsSSHRevoked is not supported.
func (r recordsOf) IsSSHRevoked(string) (bool, error) { return false, errNotSupported }

// RevokeSSH is not supported.
func (r recordsOf) RevokeSSH(*db.RevokedCertificateInfo) error { return errNotSupported }

// IsSSHHost is not supported.
func (r recordsOf) IsSSHHost(string) (bool, error) { return false, errNotSupported }

// GetSSHHostPrincipals is not supported.
func (r recordsOf) GetSSHHostPrincipals() ([]string, error) { return nil, errNotSupported }

// Shutdown has nothing to do: the store belongs to the caller.
func (r recordsOf) Shutdown() error { return nil }
