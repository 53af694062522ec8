package identity

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadBoundsKeyDerivation gives files that would keep the machine busy for
// hours.
func TestReadBoundsKeyDerivation(t *testing.T) {
	oid := func(o ...int) asn1.ObjectIdentifier { return o }
	raw := func(v any) asn1.RawValue {
		der, err := asn1.Marshal(v)
		require.NoError(t, err)
		return asn1.RawValue{FullBytes: der}
	}
	for _, rounds := range []int{-1, 0, MaxIterations + 1, 1 << 62} {
		der, err := asn1.Marshal(encryptedKey{
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 5, 13), Parameters: raw(pbes2{
				Derivation: pkix.AlgorithmIdentifier{
					Algorithm:  oid(1, 2, 840, 113549, 1, 5, 12),
					Parameters: raw(struct{ Salt, Rounds any }{[]byte("salt"), rounds}),
				},
				Encryption: pkix.AlgorithmIdentifier{Algorithm: oid(2, 16, 840, 1, 101, 3, 4, 1, 2), Parameters: raw(make([]byte, 16))},
			})},
			Data: make([]byte, 32),
		})
		require.NoError(t, err)
		for _, data := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})} {
			var a asked
			_, err = read(Source{Name: "slow.key", Data: data}, a.password)
			require.ErrorContains(t, err, "slow.key")
			require.ErrorContains(t, err, fmt.Sprintf("it asks for %d rounds of key derivation, and at most 2000000", rounds))
		}
	}
}

// TestPKCS12BoundsKeyDerivation raises each number of rounds in a file alone.
func TestPKCS12BoundsKeyDerivation(t *testing.T) {
	k := newKit(t, ecKey(t, elliptic.P256()))
	for _, legacy := range []string{"", "-legacy"} {
		args := []string{"pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-iter", "65539", "-passout", "file:password"}
		if legacy != "" {
			args = append(args, legacy)
		}
		data := k.openssl(args...).Data
		few, many := []byte{2, 3, 1, 0, 3}, []byte{2, 3, 0x7f, 0xff, 0xff}
		require.Equal(t, 3, bytes.Count(data, few), "of the certificates, the key and the MAC")
		for at := 0; at < len(data); at++ {
			if !bytes.HasPrefix(data[at:], few) {
				continue
			}
			slow := bytes.Clone(data)
			copy(slow[at:], many)
			var a asked
			_, err := read(Source{Name: "slow.p12", Data: slow}, a.password)
			require.ErrorContains(t, err, "slow.p12: it asks for 8388607 rounds")
			require.Empty(t, a)
		}
		_, err := decodePKCS12(data, []byte(secret), time.Nanosecond)
		require.ErrorContains(t, err, "takes longer than 1ns")
	}
}

// TestSecondKeyIsNotDecrypted: a thousand keys would be as slow as a slow one.
func TestSecondKeyIsNotDecrypted(t *testing.T) {
	k := newKit(t, ecKey(t, elliptic.P256()))
	one := k.openssl("pkcs8", "-topk8", "-iter", "65539", "-in", "key.pem", "-passout", "file:password")
	many := Source{Name: "many", Data: bytes.Repeat(one.Data, MaxFile/len(one.Data))}
	require.Greater(t, bytes.Count(many.Data, []byte("BEGIN")), 100)
	var a asked
	_, err := read(many, a.password)
	require.ErrorContains(t, err, "second private key")
	require.Len(t, a, 1)
}
