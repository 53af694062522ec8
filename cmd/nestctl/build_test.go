package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild"
)

// nestctl runs an artifact command and returns what it printed.
func nestctl(t *testing.T, stdin io.Reader, args ...string) (string, error) {
	t.Helper()
	root := command()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(stdin)
	root.SetArgs(append([]string{"artifact"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// pkiFiles is a folder with what an admin has: certificates and keys in files.
type pkiFiles struct {
	t      *testing.T
	dir    string
	caKey  crypto.Signer
	caCert *x509.Certificate
}

func newPKI(t *testing.T, caKey crypto.Signer) pkiFiles {
	t.Helper()
	p := pkiFiles{t: t, dir: t.TempDir(), caKey: caKey}
	p.caCert = p.issue("root", caKey, func(c *x509.Certificate) { c.IsCA = true })
	return p
}

// issue writes NAME.pem and NAME.key.
func (p pkiFiles) issue(name string, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	p.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(c)
	parent := p.caCert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), p.caKey)
	require.NoError(p.t, err)
	p.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(p.t, err)
	p.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	cert, err := x509.ParseCertificate(der)
	require.NoError(p.t, err)
	return cert
}

func (p pkiFiles) path(name string) string { return filepath.Join(p.dir, name) }

func (p pkiFiles) write(name string, data []byte) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.path(name), data, 0o600))
}

// args are those of a build with NAME.pem and NAME.key.
func (p pkiFiles) args(bases []string, name, out string, more ...string) []string {
	args := []string{
		"build", "--name", "rack1", "--cert", p.path(name + ".pem"), "--key", p.path(name + ".key"),
		"--root", p.path("root.pem"), "--url", "https://ipxe.example.com", "--out", out,
	}
	for _, b := range bases {
		args = append(args, "--base", b)
	}
	return append(args, more...)
}

// smallBase is a folder with UEFI programs alone, which take no time to patch.
func smallBase(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"snponly.efi", "ipxe-arm64.efi"} {
		data, err := os.ReadFile(lab.Need(t).IPXE(name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return []string{dir}
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return key
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	require.NoError(t, err)
	return key
}

func unchanged(*x509.Certificate) {}

// TestBuild makes every format with the binaries that machines really boot, and
// reads each file back.
func TestBuild(t *testing.T) {
	m := lab.Need(t)
	p := newPKI(t, rsaKey(t, 2048))
	key := rsaKey(t, 2048)
	p.issue("client", key, unchanged)
	out := filepath.Join(t.TempDir(), "rack1")
	printed, err := nestctl(t, nil, p.args(m.Debs(), "client", out)...)
	require.NoError(t, err)
	require.NotContains(t, printed, "not made")

	secret := fmt.Sprintf("%x", x509.MarshalPKCS1PrivateKey(key))
	root := fmt.Sprintf("%x", sha256.Sum256(p.caCert.Raw))
	holders := 0
	require.NoError(t, filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		if d.IsDir() {
			require.Zero(t, info.Mode().Perm()&0o022)
			return nil
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		name, err := filepath.Rel(out, path)
		require.NoError(t, err)
		require.Contains(t, printed, "\n"+name+" ", "the file is told of")
		if holdsKey(data, secret) {
			holders++
			require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), name)
		}
		report, err := nestctl(t, nil, "inspect", path)
		switch filepath.Base(path) {
		case "NOTICE", "lpxelinux.0", "ldlinux.c32", "default":
			return nil // not iPXE
		}
		require.NoError(t, err, name)
		require.NotContains(t, report, secret[:16], "a report never shows the key")
		require.Equal(t, holdsKey(data, secret), strings.Contains(report, "INSIDE"), "%s:\n%s", name, report)
		if filepath.Ext(name) != ".ipxe" { // a script says whom to ask, not whom to trust
			require.Contains(t, report, "Trust root:   "+root, name)
		}
		return nil
	}))
	require.GreaterOrEqual(t, holders, 7, "iso, raw, two .efi, undionly, script, script of the folder")
	for _, name := range []string{"rack1.efi", "rack1.arm64.efi", "rack1.undionly", "rack1.iso", "rack1.raw", "rack1.ipxe", "rack1/undionly.kpxe", "rack1/manifest.json"} {
		require.FileExists(t, filepath.Join(out, name))
	}
	require.Contains(t, printed, "UEFI x86-64 (7 and 9, by HTTP 16): rack1.efi\n")
	require.Contains(t, printed, "BIOS (architecture 0): rack1.undionly\n")
	require.Contains(t, printed, "rack1/snponly.efi, by TFTP with a copy of rack1/")
}

// holdsKey looks for the key as scripts have it, in plain or in UTF-16.
func holdsKey(data []byte, secret string) bool {
	var wide []byte
	for _, c := range []byte(secret) {
		wide = append(wide, c, 0)
	}
	return bytes.Contains(data, []byte(secret)) || bytes.Contains(data, wide)
}

func TestBuildNeverDestroys(t *testing.T) {
	p := newPKI(t, rsaKey(t, 2048))
	p.issue("client", rsaKey(t, 2048), unchanged)
	out := filepath.Join(t.TempDir(), "out")
	args := p.args(smallBase(t), "client", out)
	_, err := nestctl(t, nil, args...)
	require.NoError(t, err)
	_, err = nestctl(t, nil, args...)
	require.ErrorContains(t, err, "holds an earlier build")
	require.ErrorContains(t, err, "--force")

	script := filepath.Join(out, "rack1.ipxe")
	require.NoError(t, os.WriteFile(script, []byte("old"), 0o600))
	_, err = nestctl(t, nil, append(args, "--force")...)
	require.NoError(t, err)
	data, err := os.ReadFile(script)
	require.NoError(t, err)
	require.Contains(t, string(data), "#!ipxe")

	for _, name := range []string{"notes.txt", "rack1.key", "rack1.pem", "rack1/my-notes.txt", "rack1/mine/x", "rack2/manifest.json"} {
		mine := filepath.Join(out, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(mine), 0o700))
		require.NoError(t, os.WriteFile(mine, []byte("mine"), 0o600))
		_, err = nestctl(t, nil, append(args, "--force")...)
		require.ErrorContains(t, err, "which is not from a build: name another folder", name)
		require.FileExists(t, mine)
		require.NoError(t, os.Remove(mine))
		if dir := filepath.Dir(mine); dir != out {
			_ = os.Remove(dir) // unless it is the set's
		}
	}
	require.NoError(t, os.Rename(script, script+".real"))
	require.NoError(t, os.Symlink(script+".real", script))
	_, err = nestctl(t, nil, append(args, "--force")...)
	require.ErrorContains(t, err, "rack1.ipxe, which is not from a build", "a link")
	left, err := os.ReadDir(filepath.Dir(out))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing stays beside --out")
}

func TestBuildTakesKeysFromElsewhere(t *testing.T) {
	bases := smallBase(t)
	if _, err := exec.LookPath("openssl"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("openssl is not installed")
	}
	p := newPKI(t, rsaKey(t, 2048))
	key := rsaKey(t, 2048)
	p.issue("client", key, unchanged)
	p.write("password", []byte("correct horse\n"))
	run := func(args ...string) {
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = p.dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("pkcs12", "-export", "-inkey", "client.key", "-in", "client.pem", "-certfile", "root.pem", "-passout", "file:password", "-out", "client.p12")
	run("pkcs8", "-topk8", "-in", "client.key", "-passout", "file:password", "-out", "encrypted.key")
	want := fmt.Sprintf("%x", x509.MarshalPKCS1PrivateKey(key))
	pemKey, err := os.ReadFile(p.path("client.key"))
	require.NoError(t, err)
	password := []string{"--password-file", p.path("password")}
	for name, tt := range map[string]struct {
		cert, key string
		more      []string
	}{
		"PKCS #12":       {cert: "client.p12", more: password},
		"encrypted":      {cert: "client.pem", key: p.path("encrypted.key"), more: password},
		"standard input": {cert: "client.pem", key: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			args := p.args(bases, "client", out, tt.more...)
			args[4], args[6] = p.path(tt.cert), tt.key
			_, err := nestctl(t, bytes.NewReader(pemKey), args...)
			require.NoError(t, err)
			script, err := os.ReadFile(filepath.Join(out, "rack1.ipxe"))
			require.NoError(t, err)
			require.Contains(t, string(script), want)
		})
	}
}

func TestBuildKeyless(t *testing.T) {
	p := newPKI(t, rsaKey(t, 2048))
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"build", "--name", "rack1", "--keyless", "--root", p.path("root.pem"), "--url", "https://ipxe.example.com", "--out", out, "--base", smallBase(t)[0]}
	printed, err := nestctl(t, nil, args...)
	require.NoError(t, err)
	require.NotContains(t, printed, "inside")
	require.Contains(t, printed, "not made", "there was nothing for BIOS")
	report, err := nestctl(t, nil, "inspect", "-o", "json", filepath.Join(out, "rack1.efi"))
	require.NoError(t, err)
	require.Contains(t, report, `"holds_key": false`)
	require.Contains(t, report, "https://ipxe.example.com")
}

// TestBuildRefuses gives what no machine could boot with. The error names the
// file and the reason, and nothing is left behind.
func TestBuildRefuses(t *testing.T) {
	bases := smallBase(t)
	client := rsaKey(t, 2048)
	underRSA, underEC := newPKI(t, rsaKey(t, 2048)), newPKI(t, ecKey(t, elliptic.P256()))
	for name, tt := range map[string]struct {
		pki    pkiFiles
		key    crypto.Signer
		change func(*x509.Certificate)
		want   string
	}{
		"expired":             {underRSA, client, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "expired"},
		"not valid yet":       {underRSA, client, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "not valid"},
		"no clientAuth":       {underRSA, client, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "clientAuth"},
		"RSA under EC":        {underEC, client, unchanged, "issuer"},
		"EC under RSA":        {underRSA, ecKey(t, elliptic.P256()), unchanged, "issuer"},
		"RSA-1024":            {underRSA, rsaKey(t, 1024), unchanged, "2048"},
		"curve without a use": {underEC, ecKey(t, elliptic.P521()), unchanged, "P-521"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.pki.t = t
			tt.pki.issue("client", tt.key, tt.change)
			out := filepath.Join(t.TempDir(), "out")
			_, err := nestctl(t, nil, tt.pki.args(bases, "client", out)...)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, tt.pki.dir, "the error names the file")
			require.NoDirExists(t, out)
		})
	}
	t.Run("expired root", func(t *testing.T) {
		p := newPKI(t, client)
		p.issue("client", client, unchanged)
		p.caCert = nil
		p.issue("root", client, func(c *x509.Certificate) { c.IsCA, c.NotAfter = true, time.Now().Add(-time.Minute) })
		_, err := nestctl(t, nil, p.args(bases, "client", filepath.Join(t.TempDir(), "out"))...)
		require.ErrorContains(t, err, "root.pem expired")
	})
}

func TestBuildFlags(t *testing.T) {
	_, err := nestctl(t, nil, "build")
	for _, flag := range []string{"--name", "--cert", "--root", "--url", "--out"} {
		require.ErrorContains(t, err, flag+" is missing", "all are told at once")
	}
	_, err = nestctl(t, nil, "build", "--keyless", "--cert", "x")
	require.ErrorContains(t, err, "--keyless goes without --cert")
	require.NotContains(t, err.Error(), "--cert is missing")
}

func TestReadStockWithoutPackages(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "usr/lib/ipxe/qemu"), 0o755)) // ipxe-qemu
	_, err := readStock(nil, root)
	require.ErrorContains(t, err, "install Debian's packages ipxe, pxelinux, isolinux and syslinux-common")
	require.ErrorContains(t, err, "--base")
	_, err = readStock([]string{filepath.Join(root, "none.deb")}, root)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestReadStockInstalled finds the folders of Debian's packages.
func TestReadStockInstalled(t *testing.T) {
	m := lab.Need(t)
	root := t.TempDir()
	for _, dir := range append(m.SyslinuxDirs(), m.IPXEDir()) {
		_, below, ok := strings.Cut(dir, "/usr/lib/")
		require.True(t, ok, dir)
		to := filepath.Join(root, "usr/lib", below)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		require.NoError(t, os.Symlink(dir, to))
	}
	stock, err := readStock(nil, root)
	require.NoError(t, err)
	require.Len(t, stock.Bundles(), 4)
	require.Len(t, stock.Versions(), 1)
}

func TestSetOptions(t *testing.T) {
	for line, want := range map[string]ipxebuild.Options{
		"":                               {},
		"--serial-console ttyS0,115200":  {Console: ipxebuild.Console{Serial: "ttyS0,115200"}},
		"--vlan 7":                       {VLAN: 7},
		"--local-after 3 --ntp 10.0.0.1": {LocalAfter: 3, NTP: "10.0.0.1"},
		"--address 192.0.2.7/24 --gateway 192.0.2.1 --dns 192.0.2.2": {Static: &ipxebuild.Static{
			Address: netip.MustParsePrefix("192.0.2.7/24"), Gateway: netip.MustParseAddr("192.0.2.1"), DNS: netip.MustParseAddr("192.0.2.2"),
		}},
	} {
		o := parseOptions(t, line)
		got, err := o.options()
		require.NoError(t, err, line)
		require.Equal(t, want, got)
	}
	for line, want := range map[string][]string{
		"--address 192.0.2.7":                  {"prefix length"},
		"--gateway 192.0.2.1":                  {"need --address"},
		"--dns 192.0.2.1":                      {"need --address"},
		"--address x --gateway y --dns z":      {"--address", "--gateway", "--dns"},
		"--vlan 4095":                          {"4094"},
		"--vlan -1 --local-after -1":           {"4094", "local"},
		"--serial-console com1":                {"ttyS0"},
		"--ntp a/b":                            {"a/b"},
		"--address 192.0.2.7/24 --gateway ::1": {"::1"},
	} {
		_, err := parseOptions(t, line).options()
		for _, w := range want {
			require.ErrorContains(t, err, w, line)
		}
	}
}

func TestSetOptionsArch(t *testing.T) {
	archs, err := parseOptions(t, "").archs()
	require.NoError(t, err)
	require.Empty(t, archs)
	archs, err = parseOptions(t, "--arch amd64,arm64").archs()
	require.NoError(t, err)
	require.Equal(t, []boot.Arch{boot.AMD64, boot.ARM64}, archs)
	_, err = parseOptions(t, "--arch riscv64").archs()
	require.ErrorContains(t, err, "neither amd64 nor arm64")
}

func parseOptions(t *testing.T, line string) *setOptions {
	t.Helper()
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	o := setOptionFlags(fs)
	require.NoError(t, fs.Parse(strings.Fields(line)))
	return o
}
