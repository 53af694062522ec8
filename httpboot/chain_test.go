package httpboot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

// junk is a certificate of about size bytes, full of names.
func junk(t *testing.T, size int) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(3), NotAfter: time.Now().Add(time.Hour), DNSNames: make([]string, size/3)}
	for i := range tpl.DNSNames {
		tpl.DNSNames[i] = "a" // three bytes with its tag and length
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	require.NoError(t, err)
	return der
}

func TestT07_LargeChainsEndTheHandshake(t *testing.T) {
	w := start(t)
	small, large := junk(t, 30), junk(t, 6000)
	for name, tt := range map[string]struct {
		more  []byte
		times int
		fails bool
	}{
		"as many as may be":  {small, maxChain - 1, false},
		"one more":           {small, maxChain, true},
		"as large as may be": {large, 4, false},
		"larger":             {large, 6, true},
	} {
		cert := w.setCert()
		for range tt.times {
			cert.Certificate = append(cert.Certificate, tt.more)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://ipxe.test/x", http.NoBody)
		require.NoError(t, err)
		res, err := w.client(client{cert: cert}).Do(req)
		if err == nil {
			require.NoError(t, res.Body.Close())
		}
		require.Equal(t, tt.fails, err != nil, name)
		require.Equal(t, http.StatusNotFound, w.do(w.client(client{cert: cert}), http.MethodGet, "https://boot.test/x").status, "nobody asks for it there")
	}
	w.event(boot.StageTLS, "the client sent 17 certificates")
	e := w.event(boot.StageTLS, "give it its own and its intermediates only")
	require.Equal(t, "tls-failed", e.Code)
	c, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: "ipxe.test", InsecureSkipVerify: true})
	require.NoError(t, err, "who sends none is heard")
	require.NoError(t, c.Close())
}

// TestT07_StrangersDoNotKeepTheirConnection: what they sent as certificates
// stays in memory for as long as it is open.
func TestT07_StrangersDoNotKeepTheirConnection(t *testing.T) {
	w := start(t)
	for name, tt := range map[string]struct {
		cert *tls.Certificate
		path string
		ends bool
	}{
		"stranger, no such path": {selfSigned(t), "/x", true},
		"stranger":               {selfSigned(t), testQuery, true},
		"no certificate":         {nil, testQuery, false},
		"machine":                {w.setCert(), testQuery, false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://ipxe.test"+tt.path, http.NoBody)
		require.NoError(t, err)
		res, err := w.client(client{cert: tt.cert}).Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, tt.ends, res.Close, name)
	}
	c := w.client(client{cert: w.setCert()})
	require.Equal(t, http.StatusOK, w.do(c, http.MethodGet, "https://ipxe.test"+testQuery).status)
	require.Empty(t, w.do(c, http.MethodGet, "https://ipxe.test/x").header.Get("Connection"), "who has proved itself may err")
}
