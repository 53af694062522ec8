// Package signature tells whether files are what their maker signed: OpenPGP
// signatures by pinned keys (RFC 9580), and lists of digests.
//
// Parsing and arithmetic are ProtonMail's go-crypto; which key may sign, and at
// what time it must have been good, is decided here, because the library asks
// whether a key is good now, while an image that was signed last year stays good
// when the subkey that signed it has expired since. It reads no files and keeps no
// state. Begin at ReadKeys.
package signature

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Limits of what is read.
const (
	MaxKeys      = 1 << 20 // bytes of a keyring
	MaxSignature = 64 << 10
	MaxList      = 8 << 20 // Debian's Release has a quarter of a megabyte
	maxEntities  = 256
	maxPackets   = 16 // signatures in one file
)

// Codes of a Refusal.
const (
	CodeWrongKey   = "wrong-key"     // nobody who is pinned has signed
	CodeExpiredKey = "expired-key"   // the key had expired when it signed, or is revoked
	CodeBad        = "bad-signature" // the file is not what was signed
	CodeDowngrade  = "downgrade"     // the release is older than one that was here
	CodeDifferent  = "different"     // the release is here, and is another
)

// Refusal says why something is not taken.
type Refusal struct {
	Code   string
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

func refuse(code, format string, a ...any) error {
	return &Refusal{Code: code, Reason: fmt.Sprintf(format, a...)}
}

// Keyring is the pinned ones among the keys of a file.
type Keyring struct {
	keys openpgp.EntityList
}

// Signed says who signed, and when.
type Signed struct {
	Key    string    `json:"key"`    // fingerprint of the primary key
	Subkey string    `json:"subkey"` // of the key that signed; the same, if the primary did
	At     time.Time `json:"at"`
}

// ReadKeys reads public keys, armored or not, and keeps those whose primary key
// has one of the fingerprints (lower-case hexadecimal). None is a Refusal.
func ReadKeys(data []byte, fingerprints []string) (*Keyring, error) {
	if len(data) > MaxKeys {
		return nil, fmt.Errorf("the file with public keys is longer than %d bytes", MaxKeys)
	}
	raw, err := unarmor(data, openpgp.PublicKeyType, MaxKeys)
	if err != nil {
		return nil, fmt.Errorf("read public keys: %w", err)
	}
	all, err := openpgp.ReadKeyRing(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read public keys: %w", err)
	}
	if len(all) > maxEntities {
		return nil, fmt.Errorf("read public keys: there are more than %d", maxEntities)
	}
	k := &Keyring{}
	for _, e := range all {
		if slices.Contains(fingerprints, hex.EncodeToString(e.PrimaryKey.Fingerprint)) {
			k.add(e) // there may be any number of copies
		}
	}
	if len(k.keys) == 0 {
		return nil, refuse(CodeWrongKey, "none of the %d public keys has a fingerprint that is pinned (%s)", len(all), fingerprints)
	}
	return k, nil
}

// unarmor takes off the armor, if there is one.
func unarmor(data []byte, kind string, most int64) ([]byte, error) {
	if len(data) > 0 && data[0]&0x80 != 0 { // every packet begins with that bit (RFC 9580, 4.2)
		return data, nil
	}
	block, err := armor.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("it is neither OpenPGP nor its armor: %w", err)
	}
	if block.Type != kind {
		return nil, fmt.Errorf("it is a %.40q, not a %s", block.Type, kind)
	}
	return io.ReadAll(io.LimitReader(block.Body, most))
}

// Detached verifies a detached signature over what signed reads, which it reads
// to its end. If there are several signatures, one good one by a pinned key is
// enough. Its refusals are Refusals; now is the time of this host.
func (k *Keyring) Detached(signed io.Reader, sig []byte, now time.Time) (Signed, error) {
	if len(sig) > MaxSignature {
		return Signed{}, refuse(CodeBad, "the signature is longer than %d bytes", MaxSignature)
	}
	raw, err := unarmor(sig, openpgp.SignatureType, MaxSignature)
	if err != nil {
		return Signed{}, refuse(CodeBad, "the signature cannot be read: %v", err)
	}
	return k.verify(signed, bytes.NewReader(raw), now)
}

// Inline verifies a text with a signature around it (RFC 9580, 7) and returns
// the text that is signed; what stands outside of it does not count.
func (k *Keyring) Inline(data []byte, now time.Time) ([]byte, Signed, error) {
	block, _ := clearsign.Decode(data)
	if block == nil {
		return nil, Signed{}, refuse(CodeBad, "there is no signature around the list")
	}
	s, err := k.verify(bytes.NewReader(block.Bytes), io.LimitReader(block.ArmoredSignature.Body, MaxSignature), now)
	if err != nil {
		return nil, Signed{}, err
	}
	return block.Plaintext, s, nil
}

// Promising reports, before a long download, a signature that will be refused
// whatever the file is: by nobody who is pinned, or at a time when its key was no
// good. Nothing of it is proved yet.
func (k *Keyring) Promising(sig []byte, now time.Time) error {
	raw, err := unarmor(sig, openpgp.SignatureType, MaxSignature)
	if err != nil {
		return refuse(CodeBad, "the signature cannot be read: %v", err)
	}
	candidates, err := k.candidates(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range candidates {
		err := c.timely(now)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errs[0]
}

// candidate is a signature that a pinned key claims to have made.
type candidate struct {
	sig *packet.Signature
	key openpgp.Key
	sum hash.Hash // what the signature is over
	in  io.Writer // what the file is written to
}

func (k *Keyring) verify(signed, sigs io.Reader, now time.Time) (Signed, error) {
	candidates, err := k.candidates(sigs)
	if err != nil {
		return Signed{}, err
	}
	var all []io.Writer
	for _, c := range candidates {
		all = append(all, c.in)
	}
	if _, err := io.Copy(io.MultiWriter(all...), signed); err != nil {
		return Signed{}, fmt.Errorf("read what is signed: %w", err)
	}
	var errs []error
	for _, c := range candidates {
		err := c.check(now)
		if err == nil {
			return Signed{
				Key:    hex.EncodeToString(c.key.Entity.PrimaryKey.Fingerprint),
				Subkey: hex.EncodeToString(c.key.PublicKey.Fingerprint), At: c.sig.CreationTime.UTC(),
			}, nil
		}
		errs = append(errs, err)
	}
	return Signed{}, errs[0]
}

// candidates reads signatures and keeps those of pinned keys.
func (k *Keyring) candidates(sigs io.Reader) ([]candidate, error) {
	var out []candidate
	var others []string
	var odd error // counts if nothing else is there: another maker's new kind of signature may lie beside
	packets := packet.NewReader(sigs)
	for range maxPackets {
		p, err := packets.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil { // where the next one begins, nobody knows
			odd = refuse(CodeBad, "the signature cannot be read: %v", err)
			break
		}
		sig, ok := p.(*packet.Signature)
		if !ok || sig.IssuerKeyId == nil {
			odd = refuse(CodeBad, "the file beside it is no signature that names its key")
			continue
		}
		keys := k.keys.KeysByIdUsage(*sig.IssuerKeyId, packet.KeyFlagSign)
		if len(keys) == 0 {
			others = append(others, fmt.Sprintf("%016x", *sig.IssuerKeyId))
		}
		for _, key := range keys {
			c, err := newCandidate(sig, key)
			if err != nil {
				odd = err
				continue
			}
			out = append(out, c)
		}
	}
	if len(out) == 0 && odd != nil {
		return nil, odd
	}
	if len(out) == 0 {
		return nil, refuse(CodeWrongKey, "it is signed by %v, which is none of the pinned keys: they are %s", others, k.fingerprints())
	}
	return out, nil
}

// fingerprints are those of the primary keys.
func (k *Keyring) fingerprints() []string {
	var all []string
	for _, e := range k.keys {
		all = append(all, hex.EncodeToString(e.PrimaryKey.Fingerprint))
	}
	return all
}

func newCandidate(sig *packet.Signature, key openpgp.Key) (candidate, error) {
	switch sig.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
	default:
		return candidate{}, refuse(CodeBad, "the signature uses %v, which proves nothing any more", sig.Hash)
	}
	sum, err := sig.PrepareVerify()
	if err != nil {
		return candidate{}, refuse(CodeBad, "the signature cannot be checked: %v", err)
	}
	c := candidate{sig: sig, key: key, sum: sum, in: sum}
	switch sig.SigType {
	case packet.SigTypeBinary:
	case packet.SigTypeText:
		c.in = openpgp.NewCanonicalTextHash(sum)
	default:
		return candidate{}, refuse(CodeBad, "the signature is of a kind that is not for files (%d)", sig.SigType)
	}
	return c, nil
}

// check verifies a signature whose file has been read.
func (c candidate) check(now time.Time) error {
	pub := c.key.PublicKey
	if err := pub.VerifySignature(c.sum, c.sig); err != nil {
		return refuse(CodeBad, "the file is not what key %x signed: it was changed or damaged on its way", pub.Fingerprint)
	}
	return c.timely(now)
}

// timely reports a key that was no good when the signature says that it was made.
func (c candidate) timely(now time.Time) error {
	const skew = 24 * time.Hour // between the maker's clock and ours
	e, pub, at := c.key.Entity, c.key.PublicKey, c.sig.CreationTime
	self, identity := e.PrimarySelfSignature()
	sub := pub != e.PrimaryKey
	switch {
	case at.After(now.Add(skew)):
		return refuse(CodeBad, "the signature says that it was made on %s, which is still to come: check the clock of this host", at.UTC().Format(time.DateOnly))
	case self == nil || len(e.Revocations) > 0 || identity != nil && identity.Revoked(at): // a thief signs with any date, so that of a revocation says nothing
		return refuse(CodeExpiredKey, "the key %x is revoked", e.PrimaryKey.Fingerprint)
	case e.PrimaryKey.KeyExpired(self, at):
		return refuse(CodeExpiredKey, "the key %x had expired on %s, when it signed: get the keys again, or ask the maker", e.PrimaryKey.Fingerprint, at.UTC().Format(time.DateOnly))
	case sub && len(c.key.Revocations) > 0:
		return refuse(CodeExpiredKey, "the subkey %x is revoked", pub.Fingerprint)
	case sub && pub.KeyExpired(c.key.SelfSignature, at):
		return refuse(CodeExpiredKey, "the subkey %x had expired on %s, when it signed: get the keys again, or ask the maker", pub.Fingerprint, at.UTC().Format(time.DateOnly))
	case c.sig.SigExpired(now.Add(skew)):
		return refuse(CodeExpiredKey, "the signature itself has expired: it was good for some time from %s on", at.UTC().Format(time.DateOnly))
	}
	return nil
}
