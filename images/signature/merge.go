package signature

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Add takes in what another keyring knows: further keys, and of the same keys
// further revocations, identities and subkeys. Nothing is ever dropped by it, so
// a revocation that was seen once stays. The library has verified that each
// primary key has signed what hangs on it.
func (k *Keyring) Add(other *Keyring) {
	for _, e := range other.keys {
		k.add(e)
	}
}

func (k *Keyring) add(e *openpgp.Entity) {
	i := slices.IndexFunc(k.keys, func(have *openpgp.Entity) bool { return same(have.PrimaryKey, e.PrimaryKey) })
	if i < 0 {
		k.keys = append(k.keys, &openpgp.Entity{PrimaryKey: e.PrimaryKey, SelfSignature: e.SelfSignature, Signatures: e.Signatures, Identities: map[string]*openpgp.Identity{}})
		i = len(k.keys) - 1
	}
	have := k.keys[i]
	have.Revocations = union(have.Revocations, e.Revocations)
	if newer(e.SelfSignature, have.SelfSignature) {
		have.SelfSignature, have.Signatures = e.SelfSignature, e.Signatures
	}
	for name, id := range e.Identities {
		addIdentity(have, name, id)
	}
	for _, s := range e.Subkeys {
		addSubkey(have, s)
	}
}

// addIdentity leaves out what others have signed of an identity: it proves
// nothing here, and there may be any amount of it.
func addIdentity(e *openpgp.Entity, name string, id *openpgp.Identity) {
	have := e.Identities[name]
	if have == nil {
		have = &openpgp.Identity{Name: id.Name, UserId: id.UserId}
		e.Identities[name] = have
	}
	if newer(id.SelfSignature, have.SelfSignature) {
		have.SelfSignature = id.SelfSignature
	}
	have.Revocations = union(have.Revocations, id.Revocations)
	have.Signatures = slices.Clone(have.Revocations) // what Encode writes
	if have.SelfSignature != nil {
		have.Signatures = append(have.Signatures, have.SelfSignature)
	}
}

func addSubkey(e *openpgp.Entity, s openpgp.Subkey) {
	i := slices.IndexFunc(e.Subkeys, func(have openpgp.Subkey) bool { return same(have.PublicKey, s.PublicKey) })
	if i < 0 {
		e.Subkeys = append(e.Subkeys, openpgp.Subkey{PublicKey: s.PublicKey})
		i = len(e.Subkeys) - 1
	}
	have := &e.Subkeys[i]
	have.Revocations = union(have.Revocations, s.Revocations)
	if newer(s.Sig, have.Sig) {
		have.Sig = s.Sig
	}
}

func same(a, b *packet.PublicKey) bool { return bytes.Equal(a.Fingerprint, b.Fingerprint) }

func newer(a, b *packet.Signature) bool {
	return a != nil && (b == nil || a.CreationTime.After(b.CreationTime))
}

// union leaves one of each second: a key is revoked by one as by many.
func union(have, more []*packet.Signature) []*packet.Signature {
	for _, s := range more {
		if !slices.ContainsFunc(have, func(h *packet.Signature) bool { return h.CreationTime.Equal(s.CreationTime) }) {
			have = append(have, s)
		}
	}
	return have
}

// Encode is the keyring for ReadKeys.
func (k *Keyring) Encode() ([]byte, error) {
	var b bytes.Buffer
	for _, e := range k.keys {
		if err := e.Serialize(&b); err != nil {
			return nil, fmt.Errorf("encode public key %s: %w", hex.EncodeToString(e.PrimaryKey.Fingerprint), err)
		}
	}
	return b.Bytes(), nil
}
