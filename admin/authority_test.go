package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki/serving"
)

const authorityPath = base + "/authority"

// TestAuthorityGolden rotates, renews and drops.
func TestAuthorityGolden(t *testing.T) {
	a, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	for _, step := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"authority", http.MethodGet, authorityPath, "", 200},
		{"certificates", http.MethodGet, base + "/certificates", "", 200},
		{"authority-rotated", http.MethodPost, authorityPath + "/rotate", `{}`, 200},
		{"authority-new-root", http.MethodPost, authorityPath + "/rotate/", `{"root":true}`, 200},
		{"authority-drop-depending", http.MethodDelete, authorityPath + "/generations/1", "", 409},
		{"artifact-renewed", http.MethodPost, setsPath + "/1/renew", "", 200},
		{"authority-dropped", http.MethodDelete, authorityPath + "/generations/1", "", 200},
		{"authority-dropped", http.MethodDelete, authorityPath + "/generations/1", "", 200},
		{"authority-drop-newest", http.MethodDelete, authorityPath + "/generations/2", "", 409},
		{"authority-after", http.MethodGet, authorityPath, "", 200},
	} {
		status, got := ask(t, srv, step.method, step.path, step.body)
		require.Equal(t, step.status, status, "%s: %s", step.name, got)
		golden(t, step.name, steady(got))
	}
	require.Len(t, a.Authority.Generations(), 1)
}

// TestMediaOfAnOldRootAreNamed has a machine of a renewed set come by its former
// media.
func TestMediaOfAnOldRootAreNamed(t *testing.T) {
	a, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	status, _ = ask(t, srv, http.MethodPost, authorityPath+"/rotate", `{"root":true}`)
	require.Equal(t, 200, status)
	status, _ = ask(t, srv, http.MethodPost, setsPath+"/1/renew", "")
	require.Equal(t, 200, status)
	for i := range 5 {
		a.Artifacts.Used("rack1", fmt.Sprint(machineID[:len(machineID)-1], i), 1, time.Now())
	}
	status, got := ask(t, srv, http.MethodDelete, authorityPath+"/generations/1", "")
	require.Equal(t, 409, status)
	require.Contains(t, got, `"code":"sets_depend"`)
	_, got = ask(t, srv, http.MethodGet, authorityPath, "")
	require.Contains(t, got, `"why":"media: `+machineID[:len(machineID)-1]+`4, `)
	require.Contains(t, got, `and 2 more"`)
	for i := range 1200 { // more than are remembered
		a.Artifacts.Used("rack1", fmt.Sprint("x", i), 1, time.Date(2126, 1, 1, 0, 0, i, 0, time.UTC))
	}
	_, got = ask(t, srv, http.MethodGet, authorityPath, "")
	require.Contains(t, got, `and 997 more, and others that are not remembered, until 2126-01-01"`)
	status, _ = ask(t, srv, http.MethodDelete, authorityPath+"/generations/1?force=true", "")
	require.Equal(t, 200, status)
}

// TestMachinesOfRegisteredCertificatesAreNamed: their boot files were made
// elsewhere, so that they came by a generation is all that is known.
func TestMachinesOfRegisteredCertificatesAreNamed(t *testing.T) {
	a, srv := start(t)
	cert, _ := corporateCA(t)
	status, _ := ask(t, srv, http.MethodPost, trustedPath, `{"name":"corp","kind":"ca","pem":`+cert+`}`)
	require.Equal(t, 201, status)
	status, _ = ask(t, srv, http.MethodPost, authorityPath+"/rotate", `{"root":true}`)
	require.Equal(t, 200, status)
	a.Trusted.Used(1, "CN=node-2", machineID, 1, time.Now())
	status, got := ask(t, srv, http.MethodDelete, authorityPath+"/generations/1", "")
	require.Equal(t, 409, status)
	require.Contains(t, got, "came by it last: corp: make their boot files anew")
	_, got = ask(t, srv, http.MethodGet, authorityPath, "")
	require.Contains(t, got, `"trusted":[{"id":1,"name":"corp","why":"machines: `+machineID+`"}]`)
	a.Trusted.Used(1, "CN=node-2b", machineID, 2, time.Now()) // another certificate, on new media
	status, got = ask(t, srv, http.MethodDelete, authorityPath+"/generations/1", "")
	require.Equal(t, 200, status, got)
}

func TestAuthorityRequestsThatAreRefused(t *testing.T) {
	_, srv := start(t)
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"rotate by GET":      {http.MethodGet, authorityPath + "/rotate", "", 405, "only POST"},
		"rotate without":     {http.MethodPost, authorityPath + "/rotate", "", 400, "bad_json"},
		"rotate what":        {http.MethodPost, authorityPath + "/rotate", `{"roots":true}`, 422, `"roots":["is not a field"]`},
		"drop by GET":        {http.MethodGet, authorityPath + "/generations/1", "", 405, "only DELETE"},
		"drop all":           {http.MethodDelete, authorityPath + "/generations", "", 404, "not_found"},
		"drop none":          {http.MethodDelete, authorityPath + "/generations/0", "", 404, "not_found"},
		"drop by name":       {http.MethodDelete, authorityPath + "/generations/x", "", 404, "not_found"},
		"DELETE":             {http.MethodDelete, authorityPath, "", 405, "only GET"},
		"no such part":       {http.MethodGet, authorityPath + "/keys", "", 404, "not_found"},
		"too deep":           {http.MethodGet, authorityPath + "/export/1", "", 404, "not_found"},
		"no such format":     {http.MethodGet, authorityPath + "/export?format=jks", "", 422, `"format":["\"jks\" is none of pem, der, esl, fingerprint"]`},
		"no such generation": {http.MethodGet, authorityPath + "/export?generation=2", "", 404, "not_found"},
		"no such serial":     {http.MethodDelete, base + "/certificates/00ff", "", 404, "nestctl cert list"},
		"a certificate":      {http.MethodGet, base + "/certificates/00ff", "", 405, "only DELETE"},
		"all certificates":   {http.MethodDelete, base + "/certificates", "", 405, "only GET"},
		"renew by GET":       {http.MethodGet, setsPath + "/1/renew", "", 404, "not_found"},
		"explain by GET":     {http.MethodGet, base + "/auth/explain", "", 405, "only POST"},
		"explain nothing":    {http.MethodPost, base + "/auth/explain", `{}`, 422, "want either a certificate or a token"},
		"explain both":       {http.MethodPost, base + "/auth/explain", `{"certificate":"x","token":"x"}`, 422, "want either"},
		"explain no PEM":     {http.MethodPost, base + "/auth/explain", `{"certificate":"x"}`, 422, "it is no certificate in PEM"},
		"auth":               {http.MethodPost, base + "/auth", `{}`, 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := ask(t, srv, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, status, got)
			require.Contains(t, got, tt.want)
		})
	}
}

// TestT19_ExplainRepeatsNoSecret has secrets given where they don't belong.
func TestT19_ExplainRepeatsNoSecret(t *testing.T) {
	a, srv := start(t)
	status, got := ask(t, srv, http.MethodPost, chainPath, `{"name":"metal1"}`)
	require.Equal(t, 201, status)
	token := a.Links.Token(a.Links.List("url")[0]).Encode()
	require.Contains(t, got, token)
	key := "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
	for _, body := range []string{
		`{"token":"` + token + `"}`, `{"token":"` + token + `x"}`, fmt.Sprintf(`{"certificate":%q}`, key), fmt.Sprintf(`{"token":%q}`, key),
	} {
		_, got := ask(t, srv, http.MethodPost, base+"/auth/explain", body)
		require.NotContains(t, got, token)
		require.NotContains(t, got, "c2VjcmV0")
	}
}

// TestExport compares every form of the roots with what the authority has.
func TestExport(t *testing.T) {
	a, srv := start(t)
	status, _ := ask(t, srv, http.MethodPost, authorityPath+"/rotate", `{"root":true}`)
	require.Equal(t, 200, status)
	first, second := a.Authority.Trust(1), a.Authority.Trust(2)

	require.Equal(t, pemOf(second), string(export(t, srv, "")), "the newest")
	require.Equal(t, pemOf(first), string(export(t, srv, "?generation=1")))
	require.Equal(t, pemOf(first)+pemOf(second), string(export(t, srv, "?format=pem&generation=all")))
	require.Equal(t, second.Raw, export(t, srv, "?format=der"))
	sum := sha256.Sum256(second.Raw)
	require.Equal(t, hex.EncodeToString(sum[:])+"  ipxe-2.test\n", string(export(t, srv, "?format=fingerprint")))

	lists := export(t, srv, "?format=esl")
	for _, want := range []*x509.Certificate{first, second} {
		var cert []byte
		cert, lists = firstSignature(t, lists)
		require.Equal(t, want.Raw, cert, "firmware is to trust them all")
	}
	require.Empty(t, lists)
	// boot. shows a certificate of somebody else's, and firmware asks boot.
	other := anyCertificate(t)
	a.Roots = func() []*x509.Certificate { return []*x509.Certificate{second, other, first} }
	require.Equal(t, pemOf(first)+pemOf(second)+pemOf(other), string(export(t, srv, "?generation=all")))
	digest := fmt.Sprintf("%x", sha256.Sum256(other.Raw))
	require.Contains(t, string(export(t, srv, "?generation=all&format=fingerprint")), digest+"  (shown nowhere now)\n")
	a.Servers = func() []serving.Status { return []serving.Status{{Host: "boot.test", Root: digest}} }
	require.Contains(t, string(export(t, srv, "?generation=all&format=fingerprint")), digest+"  boot.test\n")
	require.Equal(t, pemOf(second), string(export(t, srv, "")), "sets of the newest trust this one alone")
	_, lists = firstSignature(t, export(t, srv, "?format=esl"))
	_, lists = firstSignature(t, lists)
	cert, lists := firstSignature(t, lists)
	require.Equal(t, other.Raw, cert)
	require.Empty(t, lists)

	one, rest := firstSignature(t, export(t, srv, "?format=esl&generation=2"))
	require.Equal(t, second.Raw, one)
	require.Empty(t, rest)
}

// anyCertificate is one of no authority's.
func anyCertificate(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Other"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func export(t *testing.T, srv *httptest.Server, query string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+authorityPath+"/export"+query, http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode, "%s", data)
	return data
}

// firstSignature reads an EFI_SIGNATURE_LIST (UEFI 2.10, 32.4.1) with one
// certificate, field by field.
func firstSignature(t *testing.T, data []byte) (cert, rest []byte) {
	t.Helper()
	require.Greater(t, len(data), 44)
	require.Equal(t, "a159c0a5e494a74a87b5ab155c2bf072", hex.EncodeToString(data[:16]), "EFI_CERT_X509_GUID, mixed-endian")
	size, header, signature := binary.LittleEndian.Uint32(data[16:]), binary.LittleEndian.Uint32(data[20:]), binary.LittleEndian.Uint32(data[24:])
	require.Zero(t, header)
	require.Equal(t, size, 28+signature, "one signature")
	owner := uuid.MustParse(org)
	require.Equal(t, owner[8:], data[36:44], "of this organization")
	require.Equal(t, []byte{owner[3], owner[2], owner[1], owner[0]}, data[28:32])
	return data[44:size], data[size:]
}

// TestIssuedCertificatesCanBeRevoked revokes the certificate of a set by its
// number, in whatever form.
func TestIssuedCertificatesCanBeRevoked(t *testing.T) {
	a, srv := start(t, someBases(t))
	status, _ := ask(t, srv, http.MethodPost, setsPath, `{"name":"rack1"}`)
	require.Equal(t, 201, status)
	serial := a.Authority.Issued()[0].Serial
	status, got := ask(t, srv, http.MethodDelete, base+"/certificates/"+strings.ToUpper(serial), "")
	require.Equal(t, 200, status, got)
	golden(t, "certificate-revoked", steady(got))
	for _, form := range []string{"00" + serial, serial[:2] + ":" + serial[2:], "0" + strings.ToUpper(serial[:1]+":"+serial[1:])} {
		status, again := ask(t, srv, http.MethodDelete, base+"/certificates/"+form, "")
		require.Equal(t, 200, status, again)
		require.Equal(t, got, again, form)
	}
}
