package serving

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRefusals: each fault of a chain has its own message, with what to do.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	ca, ec := newCustomer(t, "Customer", "rsa"), newCustomer(t, "Curves", "p256")
	foreign := ca.sign(ca.authority("Customer issuer"), nil, ca.root, keyOf(t, "rsa", 3), ca.rootKey)
	edited := func(edit func(*x509.Certificate)) given { return ca.issue("rsa", edit, "*.example.net") }
	good := edited(nil)
	leaf, middle, root := good.chain[0], good.chain[1], good.chain[2]
	chain := func(certs ...*x509.Certificate) given { return given{key: good.key, chain: certs} }
	// root and middle with the edit, and a leaf below them.
	above := func(kind string, edit func(*x509.Certificate)) given {
		c := newCustomer(t, "Odd", kind)
		c.root = c.sign(c.authority("Odd root"), edit, nil, c.rootKey, c.rootKey)
		c.middle = c.sign(c.authority("Odd issuer"), edit, c.root, c.key, c.rootKey)
		return c.issue("rsa", nil, "*.example.net")
	}
	pss := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }
	for name, c := range map[string]struct {
		given given
		want  []string
	}{
		"no root":             {chain(leaf, middle), []string{"ends in CN=Customer issuer and not in a self-signed root", "append the certificate of CN=Customer root"}},
		"leaf alone":          {chain(leaf), []string{"ends in CN=server", "append the certificate of CN=Customer issuer"}},
		"issuer missing":      {chain(leaf, root), []string{"certificate 2 (CN=Customer root) did not issue certificate 1 (CN=server): put in the certificate of CN=Customer issuer"}},
		"out of order":        {chain(leaf, root, middle), []string{"out of order", "did not issue certificate 1 (CN=server)"}},
		"more after the root": {chain(leaf, middle, root, ec.root), []string{"certificate 3 (CN=Customer root) is a root and others follow it"}},
		"root first":          {chain(root, middle, leaf), []string{"is that of certificate 3 (CN=server): put the server's own certificate first"}},
		"not signed by it":    {chain(leaf, foreign, root), []string{"certificate 2 (CN=Customer issuer) did not issue certificate 1"}},
		"other key":           {given{key: keyOf(t, "rsa", 5), chain: good.chain}, []string{"is not that of CN=server: give the key that it was issued for"}},
		"key of other type":   {given{key: keyOf(t, "p256", 5), chain: good.chain}, []string{"is not that of CN=server"}},
		"ed25519":             {ca.issue("ed25519", nil, "*.example.net"), []string{"ed25519.PrivateKey, which iPXE does not know"}},
		"p-521":               {ca.issue("p521", nil, "*.example.net"), []string{"on the curve P-521, which iPXE does not know"}},
		"rsa-1024":            {ca.issue("rsa-1024", nil, "*.example.net"), []string{"RSA key of 1024 bits: use 2048"}},
		"p-521 above":         {above("p521", nil), []string{"CN=Odd root has a key on the curve P-521", "CN=Odd issuer has a key"}},
		"ed25519 above":       {above("ed25519", nil), []string{"CN=Odd root has a key of type Ed25519", "CN=Odd root is signed with Ed25519, which iPXE cannot verify"}},
		"rsa-pss":             {edited(pss), []string{"CN=server is signed with SHA256-RSAPSS, which iPXE cannot verify: have it signed with SHA256-RSA"}},
		"rsa-pss root":        {above("rsa", pss), []string{"CN=Odd root is signed with SHA256-RSAPSS"}},
		"ocsp":                {edited(func(c *x509.Certificate) { c.OCSPServer = []string{"http://ocsp.example.net"} }), []string{"CN=server names the OCSP responder http://ocsp.example.net"}},
		"ocsp above":          {above("rsa", func(c *x509.Certificate) { c.OCSPServer = []string{"http://o"} }), []string{"CN=Odd issuer names the OCSP responder"}},
		"expired":             {edited(func(c *x509.Certificate) { c.NotAfter = ca.now.Add(-time.Hour) }), []string{"CN=server has expired on ", "renew it"}},
		"not yet valid":       {edited(func(c *x509.Certificate) { c.NotBefore = ca.now.Add(time.Hour) }), []string{"CN=server is not valid before ", "look at the clock, which says "}},
		"expired above":       {above("rsa", func(c *x509.Certificate) { c.NotAfter = ca.now.Add(-time.Hour) }), []string{"CN=Odd root has expired", "CN=Odd issuer has expired"}},
		"for clients":         {edited(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), []string{"CN=server is not for servers", "serverAuth"}},
		"issuer for clients":  {above("rsa", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), []string{"clients would refuse CN=server", "incompatible key usage"}},
		"name constraints":    {above("rsa", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} }), []string{"clients would refuse CN=server", "constraint"}},
		"critical": {above("rsa", func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.net"}, true
		}), []string{"CN=Odd issuer has the critical extension nameConstraints, which iPXE does not know"}},
		"critical, unknown": {edited(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), []string{"critical extension 1.2.3,"}},
		"no authority":       {above("rsa", func(c *x509.Certificate) { c.IsCA = false }), []string{"is not marked as an authority"}},
		"may not sign":       {above("rsa", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), []string{"CN=Odd issuer is not marked as an authority"}},
		"a typing error":     {ca.issue("rsa", nil, "bot.example.net", "ipxe.example.com"), []string{"is for bot.example.net, ipxe.example.com, and none of that is a name of example.net: a certificate for boot.example.net and ipxe.example.net is needed"}},
		"a common name only": {ca.issue("rsa", nil), []string{"is for no host name"}},
		"too many":           {chain(leaf, middle, middle, middle, middle, middle, middle, middle, root), []string{"more than 8 certificates"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := c.given.write(t, files(t))
			got := w.refused(f)
			for _, want := range c.want {
				require.Contains(t, got, want)
			}
			require.Contains(t, got, f.Certificate[:len(f.Certificate)-len("cert.pem")], "which file it is")
			require.EqualError(t, Check([]File{f}, "example.net", w.now), strings.TrimPrefix(got, "server certificates: "))
		})
	}
	app := ca.issue("ed25519", nil, "app.example.net")
	app.key, app.chain[0] = good.key, ca.leaf(good.key, func(c *x509.Certificate) { c.OCSPServer = []string{"http://o"} }, "app.example.net")
	require.NoError(t, Check([]File{
		good.write(t, files(t)), ca.issue("rsa", nil, "ipxe-7.example.net").write(t, files(t)), app.write(t, files(t)),
	}, "example.net", w.now), "iPXE does not come to app.")
	require.NotEmpty(t, w.open(good.write(t, files(t))).Status(), "and without a fault it starts")
}

// TestFilesThatHoldSomethingElse: what is wrong with the files themselves.
func TestFilesThatHoldSomethingElse(t *testing.T) {
	w := newWorld(t)
	good := newCustomer(t, "Customer", "rsa").issue("rsa", nil, "*.example.net")
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(good.key.(*rsa.PrivateKey))})
	write := func(path string, text []byte) { require.NoError(t, os.WriteFile(path, text, 0o600)) }
	for name, c := range map[string]struct {
		edit func(File)
		want string
	}{
		"no certificate": {func(f File) { require.NoError(t, os.Remove(f.Certificate)) }, "no such file"},
		"no key":         {func(f File) { require.NoError(t, os.Remove(f.Key)) }, "no such file"},
		"der":            {func(f File) { write(f.Certificate, good.chain[0].Raw) }, "no certificate in PEM form"},
		"empty key":      {func(f File) { write(f.Key, nil) }, "no private key in PEM form"},
		"exchanged":      {func(f File) { write(f.Certificate, good.keyPEM(t)) }, "no certificate in PEM form"},
		"damaged": {func(f File) {
			write(f.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
		}, "certificate 1 is damaged"},
		"damaged key":   {func(f File) { write(f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})) }, "the key is damaged"},
		"encrypted key": {func(f File) { write(f.Key, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"})) }, "decrypt it with: openssl pkey"},
		"encrypted the old way": {func(f File) {
			write(f.Key, []byte(strings.Replace(string(pkcs1), "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1)))
		}, "the key is encrypted"},
		"open to others": {func(f File) { require.NoError(t, os.Chmod(f.Key, 0o644)) }, "is open to others (mode 0644): run: chmod 0640 "},
		"too large":      {func(f File) { write(f.Certificate, make([]byte, maxFile+1)) }, "it is not a server certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			f := good.write(t, files(t))
			c.edit(f)
			got := w.refused(f)
			require.Contains(t, got, c.want)
			require.Contains(t, got, f.Certificate[:len(f.Certificate)-len("cert.pem")])
		})
	}
	t.Run("every fault at once", func(t *testing.T) {
		one, two := good.write(t, files(t)), good.write(t, files(t))
		require.NoError(t, os.Chmod(one.Key, 0o644))
		write(two.Key, nil)
		got := w.refused(one, two)
		require.Contains(t, got, one.Key+" is open to others")
		require.Contains(t, got, two.Key+": it holds no private key")
	})
	for name, key := range map[string][]byte{"pkcs1": pkcs1, "with parameters before it": append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), pkcs1...)} {
		t.Run(name, func(t *testing.T) {
			f := good.write(t, files(t))
			write(f.Key, key)
			w.open(f)
		})
	}
	t.Run("one file for both", func(t *testing.T) {
		f := files(t)
		f.Key = f.Certificate
		write(f.Key, append(good.keyPEM(t), good.certificatePEM()...))
		w.open(f)
	})
}

// TestOldIPXE: with boot files of iPXE 1.21.1, ipxe. needs a chain without any
// elliptic curve.
func TestOldIPXE(t *testing.T) {
	ca, curves := newCustomer(t, "Customer", "rsa"), newCustomer(t, "Curves", "p256")
	mixed := newCustomer(t, "Mixed", "p256") // an RSA key whose issuer has a curve
	w := newWorld(t)
	for name, c := range map[string]struct {
		files   []given
		refused bool
	}{
		"rsa":                     {[]given{ca.issue("rsa", nil, "*.example.net")}, false},
		"both":                    {[]given{ca.issue("p256", nil, "*.example.net"), ca.issue("rsa", nil, "*.example.net")}, false},
		"ec below rsa":            {[]given{ca.issue("p256", nil, "*.example.net")}, true},
		"ec":                      {[]given{curves.issue("p256", nil, "*.example.net")}, true},
		"rsa below ec":            {[]given{mixed.issue("rsa", nil, ipxeHost)}, true},
		"ec for boot. alone":      {[]given{curves.issue("p256", nil, bootHost)}, false},
		"own":                     {nil, false},
		"ec for app. and nothing": {[]given{curves.issue("p256", nil, "app.example.net")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var fs []File
			for _, g := range c.files {
				fs = append(fs, g.write(t, files(t)))
			}
			cfg := w.config(fs...)
			cfg.OldIPXE = true
			certs, err := Open(t.Context(), cfg)
			if c.refused {
				require.ErrorContains(t, err, "ipxe.example.net: boot files of an iPXE before 2.0.0 are imported")
				require.ErrorContains(t, err, fs[0].Certificate)
				w.open(fs...) // iPXE 2.0.0 does verify them
				return
			}
			require.NoError(t, err)
			_, err = ipxe(certs.Root(ipxeHost)).connect(t, certs, ipxeHost)
			require.NoError(t, err)
		})
	}
}

func TestWarnings(t *testing.T) {
	ca := newCustomer(t, "Customer", "rsa")
	in := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = ca.now.Add(d) }
	}
	const day = 24 * time.Hour
	w := newWorld(t)
	for name, c := range map[string]struct {
		edit func(*x509.Certificate)
		want string
	}{
		"long":     {in(31 * day), ""},
		"30 days":  {in(29 * day), "CN=server expires in less than 30 days, on "},
		"7 days":   {in(6 * day), "CN=server expires in less than 7 days, on "},
		"1 day":    {in(day - time.Hour), "CN=server expires in less than 1 days, on "},
		"crl":      {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://crl.example.net"} }, "names a revocation list (http://crl.example.net), which iPXE and firmware never read"},
		"sha-1":    {func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }, "signed with SHA-1"},
		"new":      {func(c *x509.Certificate) { c.NotBefore = ca.now.Add(-time.Hour) }, "machines whose clock is behind may refuse it"},
		"no usage": {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, ""},
		"harmless": {func(c *x509.Certificate) {
			c.Subject = pkix.Name{} // so that the names are critical
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte{5, 0}}}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "sha-1" {
				t.Setenv("GODEBUG", "x509sha1=1") // to have a test sign with it
			}
			rsaOne, ecOne := ca.issue("rsa", c.edit, "*.example.net"), ca.issue("p256", nil, "*.example.net")
			certs := w.open(rsaOne.write(t, files(t)), ecOne.write(t, files(t)))
			var all []string
			for _, st := range certs.Status() {
				all = append(all, st.Warnings...)
			}
			text := strings.Join(all, "\n")
			if c.want == "" {
				require.Empty(t, text)
				require.Empty(t, w.log.take())
				return
			}
			require.Contains(t, text, c.want)
			require.Contains(t, w.log.take(), "level=WARN msg=\"server certificate\"")
		})
	}
	one := w.open(ca.issue("rsa", nil, "*.example.net").write(t, files(t)))
	require.Contains(t, one.Status()[0].Warnings[0], "no ECDSA certificate for this name")
	one = w.open(ca.issue("p256", nil, "*.example.net").write(t, files(t)))
	require.Contains(t, one.Status()[0].Warnings[0], "no RSA certificate for this name: iPXE before 2.0.0 and old firmware cannot connect")
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, certificate, key []byte) {
		p, err := File{Certificate: "c", Key: "k"}.parse(content{certificate, key})
		if err != nil {
			return
		}
		require.NotEmpty(t, p.chain)
		require.LessOrEqual(t, len(p.chain), maxChain)
		p.faults(time.Now())
		p.warnings(time.Now())
	})
}

// TestWarningsOfFiles is what check-config says of files that a start would take.
func TestWarningsOfFiles(t *testing.T) {
	w := newWorld(t)
	ca := newCustomer(t, "Customer", "rsa")
	soon := ca.issue("rsa", func(c *x509.Certificate) { c.NotAfter = ca.now.Add(5 * 24 * time.Hour) }, "*.example.net")
	f := soon.write(t, files(t))
	require.NoError(t, Check([]File{f}, "example.net", w.now))
	require.Contains(t, strings.Join(Warnings([]File{f}, w.now), "\n"), "CN=server expires in less than 7 days")
	require.Empty(t, Warnings([]File{{Certificate: "missing", Key: "missing"}}, w.now), "Check says that")
}
