package identity

import (
	"crypto/elliptic"
	"crypto/x509"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRead reads foreign files. The corpus has one of every form that openssl
// writes, made for this test alone: its keys open nothing.
func FuzzRead(f *testing.F) {
	k := newKit(f, ecKey(f, elliptic.P256()))
	root := k.source("root.pem")
	f.Add(root.Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var a asked
		s := Source{Name: "fuzz", Data: data}
		id, err := Read(Input{Cert: s, Root: root, Password: a.password})
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
		require.LessOrEqual(t, len(a), 1, "a password is asked for once")
		_, _ = ReadRoot(s)
		if err != nil {
			require.Contains(t, err.Error(), "fuzz")
			return
		}
		key, err := parseKey(id.Key.DER())
		require.NoError(t, err)
		var held contents
		require.NoError(t, held.add(key))
		_, _, err = match([]*x509.Certificate{id.Leaf}, held.keys[0])
		require.NoError(t, err)
	})
}
