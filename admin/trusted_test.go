package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const trustedPath = base + "/trusted_certificates"

// corporateCA is the certificate of a customer's authority as a JSON string, and
// its key in PEM as another.
func corporateCA(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Corporate CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	text := func(kind string, b []byte) string {
		out, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})))
		require.NoError(t, err)
		return string(out)
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", pkcs8)
}

// TestTrustedGolden goes through the life of a registered authority.
func TestTrustedGolden(t *testing.T) {
	_, srv := start(t)
	cert, _ := corporateCA(t)
	for _, step := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"trusted-none", http.MethodGet, trustedPath, "", 200},
		{"trusted-created", http.MethodPost, trustedPath, `{"name":"corp","kind":"ca","pem":` + cert + `,"match":null,"allow":["CN=node-*"],"machines":["` + machineID + `"],"crl":null,"expires_at":"2031-01-31T23:59:59Z"}`, 201},
		{"trusted", http.MethodGet, trustedPath + "/1/", "", 200},
		{"trusted-taken", http.MethodPost, trustedPath, `{"name":"CORP","kind":"ca","pem":` + cert + `}`, 422},
		{"trusted-wrong", http.MethodPost, trustedPath, `{"name":"x","kind":"ca","pem":"x","match":"key","allow":["x"],"machines":["x"],"crl":{"stale":"x"},"expires_at":"2020-01-01T00:00:00Z"}`, 422},
		{"trusted-removed", http.MethodDelete, trustedPath + "/1", "", 200},
		{"trusted-gone", http.MethodGet, trustedPath + "/1", "", 404},
	} {
		status, got := ask(t, srv, step.method, step.path, step.body)
		require.Equal(t, step.status, status, "%s: %s", step.name, got)
		golden(t, step.name, steady(got))
	}
}

// TestT19_PrivateKeyIsNeitherTakenNorRepeated has one sent by mistake.
func TestT19_PrivateKeyIsNeitherTakenNorRepeated(t *testing.T) {
	_, srv := start(t)
	cert, key := corporateCA(t)
	both := cert[:len(cert)-1] + key[1:]
	status, got := ask(t, srv, http.MethodPost, trustedPath, `{"name":"corp","kind":"ca","pem":`+both+`}`)
	require.Equal(t, 422, status)
	require.Contains(t, got, "PRIVATE KEY")
	require.NotContains(t, got, key[40:80])
	_, got = ask(t, srv, http.MethodGet, trustedPath)
	require.JSONEq(t, `{"trusted_certificates":[]}`, got)
}

func TestTrustedRequestsThatAreRefused(t *testing.T) {
	_, srv := start(t)
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"unknown field":       {http.MethodPost, trustedPath, `{"name":"a","certificate":"x"}`, 422, `"certificate":["is not a field"]`},
		"unknown inner field": {http.MethodPost, trustedPath, `{"name":"a","crl":{"uri":"x"}}`, 422, `"crl.uri":["is not a field"]`},
		"no body":             {http.MethodPost, trustedPath, "", 400, "bad_json"},
		"immutable":           {http.MethodPut, trustedPath + "/1", `{}`, 404, "not_found"},
		"DELETE of all":       {http.MethodDelete, trustedPath, "", 405, "only GET and POST"},
		"by name":             {http.MethodGet, trustedPath + "/corp", "", 404, `trusted certificate \"corp\" does not exist`},
		"too deep":            {http.MethodGet, trustedPath + "/1/x", "", 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := ask(t, srv, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, status, got)
			require.Contains(t, got, tt.want)
		})
	}
}
