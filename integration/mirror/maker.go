package mirror

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"io"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/stretchr/testify/require"
)

// Maker signs releases as the makers of operating systems do: with a subkey of
// a primary key that stays.
type Maker struct {
	t      testing.TB
	entity *openpgp.Entity
}

// NewMaker makes a primary key at a time, and a signing subkey that lasts that
// long; 0 is for ever.
func NewMaker(t testing.TB, at time.Time, subkeyLasts time.Duration) *Maker {
	t.Helper()
	c := config(at)
	e, err := openpgp.NewEntity("Maker", "test", "maker@example.com", c)
	require.NoError(t, err)
	m := &Maker{t: t, entity: e}
	m.AddSubkey(at, subkeyLasts)
	return m
}

func config(at time.Time) *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA512, Time: func() time.Time { return at }}
}

// AddSubkey makes another signing subkey, which signs from then on.
func (m *Maker) AddSubkey(at time.Time, lasts time.Duration) {
	m.t.Helper()
	c := config(at)
	c.KeyLifetimeSecs = uint32(lasts / time.Second)
	require.NoError(m.t, m.entity.AddSigningSubkey(c))
}

// Revoke revokes the primary key at a time.
func (m *Maker) Revoke(why packet.ReasonForRevocation, at time.Time) {
	m.t.Helper()
	require.NoError(m.t, m.entity.RevokeKey(why, "test", config(at)))
}

// RevokeSubkey revokes the subkey that signs at a time.
func (m *Maker) RevokeSubkey(why packet.ReasonForRevocation, at time.Time) {
	m.t.Helper()
	require.NoError(m.t, m.entity.RevokeSubkey(&m.entity.Subkeys[len(m.entity.Subkeys)-1], why, "test", config(at)))
}

// Fingerprint is the primary key's.
func (m *Maker) Fingerprint() string { return hex.EncodeToString(m.entity.PrimaryKey.Fingerprint) }

// Keys are the public keys, armored.
func (m *Maker) Keys() []byte {
	m.t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	require.NoError(m.t, err)
	require.NoError(m.t, m.entity.Serialize(w))
	require.NoError(m.t, w.Close())
	return b.Bytes()
}

// newest is the subkey that was made last, which the library would not choose
// once it has expired.
func (m *Maker) newest() *packet.PrivateKey {
	return m.entity.Subkeys[len(m.entity.Subkeys)-1].PrivateKey
}

// Sign is a detached signature over data, not armored, as Flatcar's are.
func (m *Maker) Sign(data []byte, at time.Time) []byte {
	m.t.Helper()
	key := m.newest()
	sig := &packet.Signature{
		Version: key.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: key.PubKeyAlgo, Hash: crypto.SHA512,
		CreationTime: at, IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint,
	}
	h, err := sig.PrepareSign(config(at))
	require.NoError(m.t, err)
	_, err = h.Write(data)
	require.NoError(m.t, err)
	require.NoError(m.t, sig.Sign(h, key, config(at)))
	var b bytes.Buffer
	require.NoError(m.t, sig.Serialize(&b))
	return b.Bytes()
}

// SignInline is data with a signature around it, as Flatcar's DIGESTS.asc are.
func (m *Maker) SignInline(data []byte, at time.Time) []byte {
	m.t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, m.newest(), config(at))
	require.NoError(m.t, err)
	_, err = io.Copy(w, bytes.NewReader(data))
	require.NoError(m.t, err)
	require.NoError(m.t, w.Close())
	return b.Bytes()
}
