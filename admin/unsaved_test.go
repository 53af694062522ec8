package admin

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// TestWhatCouldNotBeWrittenDownIsSaid ends one of everything without a store, each
// twice: the second time must not say that there is nothing to end.
func TestWhatCouldNotBeWrittenDownIsSaid(t *testing.T) {
	a, srv, s := startOn(t, someBases(t))
	cert, _ := corporateCA(t)
	for path, body := range map[string]string{
		setsPath: `{"name":"rack1"}`, chainPath: `{"name":"metal1"}`, authorityPath + "/rotate": `{"root":true}`,
		trustedPath: `{"name":"corp","kind":"ca","pem":` + cert + `}`,
	} {
		status, got := ask(t, srv, http.MethodPost, path, body)
		require.Less(t, status, 300, got)
	}
	serial := a.Authority.Issued()[0].Serial
	require.NoError(t, s.Close())
	for _, path := range []string{
		base + "/certificates/" + serial, authorityPath + "/generations/1?force=true", setsPath + "/1", chainPath + "/1", trustedPath + "/1",
	} {
		for range 2 {
			status, got := ask(t, srv, http.MethodDelete, path)
			require.Equal(t, 503, status, "%s: %s", path, got)
			require.Contains(t, got, `"code":"not_saved"`)
			require.Contains(t, got, "from now on, but a restart would forget that")
			require.Contains(t, got, "repeat the command")
		}
	}
}

func TestWhatCouldNotBeWrittenDownForWantOfSpace(t *testing.T) {
	e := asAPIError(&pki.Unsaved{What: "url 1 is refused", Err: store.ErrNoSpace})
	require.Equal(t, http.StatusInsufficientStorage, e.Status)
	require.Equal(t, "no_space", e.Code)
	require.Contains(t, e.Message, "make room for the store")
}
