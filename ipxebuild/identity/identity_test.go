package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// form is a way in which a PKI tool writes a certificate or a key.
type form struct {
	name      string
	openssl   []string // arguments; nil: the file as the kit wrote it
	encrypted bool
	only      string // "ec" or "rsa"
}

var keyForms = []form{
	{name: "PKCS #8"},
	{name: "PKCS #8 DER", openssl: []string{"pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", "key.pem"}},
	{name: "PKCS #1", openssl: []string{"rsa", "-traditional", "-in", "key.pem"}, only: "rsa"},
	{name: "PKCS #1 DER", openssl: []string{"rsa", "-traditional", "-outform", "DER", "-in", "key.pem"}, only: "rsa"},
	{name: "SEC 1", openssl: []string{"ec", "-in", "key.pem"}, only: "ec"},
	{name: "SEC 1 DER", openssl: []string{"ec", "-outform", "DER", "-in", "key.pem"}, only: "ec"},
	{name: "encrypted by default", openssl: []string{"pkcs8", "-topk8", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "encrypted DER", openssl: []string{"pkcs8", "-topk8", "-outform", "DER", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "AES-128", openssl: []string{"pkcs8", "-topk8", "-v2", "aes-128-cbc", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "AES-192, many rounds", openssl: []string{"pkcs8", "-topk8", "-v2", "aes-192-cbc", "-iter", "100000", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "3DES, SHA-1", openssl: []string{"pkcs8", "-topk8", "-v2", "des3", "-v2prf", "hmacWithSHA1", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "SHA-512", openssl: []string{"pkcs8", "-topk8", "-v2prf", "hmacWithSHA512", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "SHA-384", openssl: []string{"pkcs8", "-topk8", "-v2prf", "hmacWithSHA384", "-in", "key.pem", "-passout", "file:password"}, encrypted: true},
	{name: "RFC 1423 AES", openssl: []string{"rsa", "-traditional", "-aes256", "-in", "key.pem", "-passout", "file:password"}, encrypted: true, only: "rsa"},
	{name: "RFC 1423 3DES", openssl: []string{"ec", "-des3", "-in", "key.pem", "-passout", "file:password"}, encrypted: true, only: "ec"},
}

var pkcs12Forms = []form{
	{name: "modern", openssl: []string{"-passout", "file:password"}, encrypted: true},
	{name: "legacy RC2 and 3DES", openssl: []string{"-legacy", "-passout", "file:password"}, encrypted: true},
	{name: "3DES", openssl: []string{"-legacy", "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-passout", "file:password"}, encrypted: true},
	{name: "SHA-512 MAC", openssl: []string{"-macalg", "sha512", "-iter", "10000", "-passout", "file:password"}, encrypted: true},
	{name: "certificates in the clear", openssl: []string{"-certpbe", "NONE", "-passout", "file:password"}, encrypted: true},
	{name: "empty password", openssl: []string{"-passout", "pass:"}},
	{name: "nothing encrypted", openssl: []string{"-certpbe", "NONE", "-keypbe", "NONE", "-nomac", "-passout", "pass:"}},
}

// TestRead takes a key of each kind in each form that openssl writes.
func TestRead(t *testing.T) {
	for kind, key := range map[string]crypto.Signer{"rsa": rsaKey(t), "ec": ecKey(t, elliptic.P256())} {
		k := newKit(t, key)
		for _, f := range keyForms {
			if f.only != "" && f.only != kind {
				continue
			}
			t.Run(kind+" "+f.name, func(t *testing.T) {
				file := k.source("key.pem")
				if f.openssl != nil {
					file = k.openssl(f.openssl...)
				}
				file.Name = "client.key"
				k.requireRead(t, Input{Cert: k.source("cert.pem"), Key: file}, f.encrypted)
			})
		}
		for _, f := range pkcs12Forms {
			t.Run(kind+" PKCS #12 "+f.name, func(t *testing.T) {
				args := []string{"pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-certfile", "root.pem"}
				got := k.requireRead(t, Input{Cert: k.openssl(append(args, f.openssl...)...)}, f.encrypted)
				require.Equal(t, []*x509.Certificate{k.root}, got.Chain)
			})
		}
		t.Run(kind+" all in one PEM file", func(t *testing.T) {
			in := Input{Cert: join(k.source("root.pem"), k.source("key.pem"), k.source("cert.pem"))}
			got := k.requireRead(t, in, false)
			require.Equal(t, []*x509.Certificate{k.root}, got.Chain, "the leaf is the one with the key, wherever it stands")
		})
	}
}

// requireRead reads in and checks everything that comes out.
func (k kit) requireRead(t *testing.T, in Input, encrypted bool) Identity {
	t.Helper()
	var a asked
	in.Root, in.Password = k.source("root.pem"), a.password
	got, err := Read(in)
	require.NoError(t, err)
	require.Equal(t, encrypted, len(a) == 1, "asked %d times", len(a))
	require.Equal(t, k.leaf.Raw, got.Leaf.Raw)
	require.Equal(t, k.root.Raw, got.Root.Raw)
	require.Equal(t, sha256.Sum256(k.root.Raw), got.RootFingerprint())
	var back crypto.Signer
	switch k.key.(type) {
	case *rsa.PrivateKey:
		require.Equal(t, "RSA-2048", got.Key.Type())
		back, err = x509.ParsePKCS1PrivateKey(got.Key.DER())
	case *ecdsa.PrivateKey:
		require.Equal(t, "P-256", got.Key.Type())
		back, err = x509.ParseECPrivateKey(got.Key.DER())
	}
	require.NoError(t, err)
	require.Equal(t, k.key.Public(), back.Public())
	require.Equal(t, k.key.Public(), got.Key.Signer().Public())
	return got
}

func TestReadCertificates(t *testing.T) {
	k := newKit(t, ecKey(t, elliptic.P384()))
	for name, cert := range map[string]Source{
		"DER":                       k.openssl("x509", "-outform", "DER", "-in", "cert.pem"),
		"with text":                 k.openssl("x509", "-text", "-in", "cert.pem"),
		"CRLF":                      {Name: "x", Data: []byte(strings.ReplaceAll(string(k.source("cert.pem").Data), "\n", "\r\n"))},
		"parameters before the key": join(k.openssl("ecparam", "-name", "prime256v1"), k.source("cert.pem")),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(Input{Cert: cert, Key: k.source("key.pem"), Root: k.openssl("x509", "-outform", "DER", "-in", "root.pem")})
			require.NoError(t, err)
			require.Equal(t, k.leaf.Raw, got.Leaf.Raw)
			require.Equal(t, "P-384", got.Key.Type())
		})
	}
}

func TestReadRefuses(t *testing.T) {
	k := newKit(t, ecKey(t, elliptic.P256()))
	other := newKit(t, ecKey(t, elliptic.P256()))
	ed := newKit(t, edKey(t))
	p521 := newKit(t, ecKey(t, elliptic.P521()))
	cert, key, root := k.source("cert.pem"), k.source("key.pem"), k.source("root.pem")
	encrypted := k.openssl("pkcs8", "-topk8", "-in", "key.pem", "-passout", "file:password")
	der := k.openssl("pkcs8", "-topk8", "-outform", "DER", "-in", "key.pem", "-passout", "file:password")
	p12 := k.openssl("pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-passout", "file:password")
	renewed := k.issue("renewed", k.key.Public(), nil, k.key)
	wrong := func(string) ([]byte, error) { return []byte("wrong"), nil }
	for name, tt := range map[string]struct {
		in   Input
		want []string // the file and what is the matter or to be done
	}{
		"someone else's key":  {Input{Cert: cert, Key: other.source("key.pem"), Root: root}, []string{"key.pem", "cert.pem", "does not belong", "requested with"}},
		"no key":              {Input{Cert: cert, Root: root}, []string{"cert.pem holds 0 private keys", "name the file"}},
		"two keys":            {Input{Cert: cert, Key: join(key, other.source("key.pem")), Root: root}, []string{"joined", "second private key"}},
		"two certificates":    {Input{Cert: join(cert, Source{Data: certPEM(renewed)}), Key: key, Root: root}, []string{"joined", "two certificates"}},
		"no certificate":      {Input{Cert: key, Key: key, Root: root}, []string{"key.pem holds no certificate"}},
		"request":             {Input{Cert: k.openssl("req", "-new", "-subj", "/CN=x", "-key", "key.pem"), Key: key, Root: root}, []string{"made", "neither a certificate nor"}},
		"Ed25519":             {Input{Cert: ed.source("cert.pem"), Key: ed.source("key.pem"), Root: root}, []string{"key.pem", "Ed25519", "use RSA-2048 or P-256"}},
		"P-521":               {Input{Cert: p521.source("cert.pem"), Key: p521.source("key.pem"), Root: root}, []string{"key.pem", "P-521", "use RSA-2048 or P-256"}},
		"empty file":          {Input{Cert: Source{Name: "cert.pem"}, Key: key, Root: root}, []string{"cert.pem", "neither PEM nor DER"}},
		"large file":          {Input{Cert: Source{Name: "cert.pem", Data: make([]byte, MaxFile+1)}, Key: key, Root: root}, []string{"cert.pem has 65537 bytes"}},
		"cut short":           {Input{Cert: Source{Name: "cert.pem", Data: cert.Data[:len(cert.Data)-5]}, Key: key, Root: root}, []string{"cert.pem", "cut short"}},
		"BER":                 {Input{Cert: Source{Name: "x.p12", Data: []byte{0x30, 0x80, 2, 1, 3}}, Root: root}, []string{"x.p12", "BER", "openssl pkcs12"}},
		"root with a key":     {Input{Cert: cert, Key: key, Root: join(root, key)}, []string{"joined holds a private key", "certificate alone"}},
		"two roots":           {Input{Cert: cert, Key: key, Root: join(root, root)}, []string{"joined holds 2 certificates", "file of its own"}},
		"root that is no CA":  {Input{Cert: cert, Key: key, Root: cert}, []string{"cert.pem", "not a CA"}},
		"nobody to ask":       {Input{Cert: cert, Key: encrypted, Root: root}, []string{"made", "encrypted"}},
		"wrong password":      {Input{Cert: cert, Key: encrypted, Root: root, Password: wrong}, []string{"made", "wrong password"}},
		"wrong password, DER": {Input{Cert: cert, Key: der, Root: root, Password: wrong}, []string{"made", "wrong password"}},
		"wrong password, p12": {Input{Cert: p12, Root: root, Password: wrong}, []string{"made", "wrong password"}},
		"asking failed": {
			Input{Cert: p12, Root: root, Password: func(string) ([]byte, error) { return nil, errors.New("no terminal") }},
			[]string{"made", "no terminal"},
		},
		"scrypt": {
			Input{Cert: cert, Key: k.openssl("pkcs8", "-topk8", "-scrypt", "-in", "key.pem", "-passout", "file:password"), Root: root, Password: wrong},
			[]string{"made", "not PBKDF2", "openssl pkcs8"},
		},
		"PBES1": {
			Input{Cert: cert, Key: k.openssl("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-in", "key.pem", "-passout", "file:password"), Root: root, Password: wrong},
			[]string{"made", "not PBES2", "openssl pkcs8"},
		},
		"without MAC": {
			Input{Cert: k.openssl("pkcs12", "-export", "-nomac", "-inkey", "key.pem", "-in", "cert.pem", "-passout", "file:password"), Root: root, Password: wrong},
			[]string{"made", "no MAC"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(tt.in)
			require.Error(t, err)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

// TestKeyIsNotPrinted tries every way in which a key ends up in a log.
func TestKeyIsNotPrinted(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	key, err := newKey(ec)
	require.NoError(t, err)
	id := Identity{Key: key}
	raw, err := ec.Bytes()
	require.NoError(t, err)
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", key, &key, id)
	}
	text, err := json.Marshal(id)
	require.NoError(t, err)
	out.Write(text)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", key, "id", id)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", key, "id", id)
	printed := strings.ToLower(out.String())
	require.Contains(t, printed, "[redacted]")
	for _, b := range [][]byte{raw, key.DER()} {
		require.NotContains(t, printed, fmt.Sprintf("%x", b)[:16])
		require.NotContains(t, printed, strings.Trim(fmt.Sprint(b), "[]")[:16])
	}
	require.Nil(t, Key{}.DER())
	require.Nil(t, Key{}.Signer())
}
