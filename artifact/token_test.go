package artifact

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Addresses that were handed out end when their secret is gone; the log says
// so, and not at the first start.
func TestLostSecretOfAddressesIsTold(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	require.NotContains(t, w.log.String(), "secret of download addresses")
	before := w.create(s, Spec{Name: "rack1", Exposure: []Protocol{TFTP}})
	require.NoError(t, os.Remove(filepath.Join(w.dir, "sets", secretFile)))
	s = w.open()
	require.Contains(t, w.log.String(), "the secret of download addresses was missing")
	require.NotEqual(t, before.Token, s.List()[0].Token)
}
