package ipxebuild

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"

	"github.com/nestboot/nestboot/integration/lab"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// efi makes a small but whole PE32+ EFI application with one section that
// holds body.
func efi(t testing.TB, machine uint16, body []byte) []byte {
	t.Helper()
	const headers = 0x200
	var b bytes.Buffer
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	binary.LittleEndian.PutUint32(dos[0x3c:], 0x40)
	b.Write(dos)
	b.WriteString("PE\x00\x00")
	put := func(v any) { require.NoError(t, binary.Write(&b, binary.LittleEndian, v)) }
	put(pe.FileHeader{Machine: machine, NumberOfSections: 1, SizeOfOptionalHeader: 240, Characteristics: 0x22})
	put(pe.OptionalHeader64{
		Magic: 0x20b, SectionAlignment: 0x1000, FileAlignment: 0x200, SizeOfHeaders: headers,
		Subsystem: pe.IMAGE_SUBSYSTEM_EFI_APPLICATION, NumberOfRvaAndSizes: 16,
	})
	section := pe.SectionHeader32{VirtualSize: uint32(len(body)), VirtualAddress: 0x1000, SizeOfRawData: uint32(len(body)), PointerToRawData: headers}
	copy(section.Name[:], ".text")
	put(section)
	b.Write(make([]byte, headers-b.Len()))
	b.Write(body)
	return b.Bytes()
}

// sign puts something into a PE file's certificate table.
func sign(data []byte) []byte {
	out := append(bytes.Clone(data), "signature"...)
	entry := out[0x40+4+20+112+8*pe.IMAGE_DIRECTORY_ENTRY_SECURITY:]
	binary.LittleEndian.PutUint32(entry, uint32(len(data)))
	binary.LittleEndian.PutUint32(entry[4:], uint32(len("signature")))
	return out
}

func fingerprint(t testing.TB) []byte {
	t.Helper()
	f, err := hex.DecodeString(stockFingerprint)
	require.NoError(t, err)
	return f
}

// ipxe is what ReadBase looks for in iPXE's code.
func ipxe(t testing.TB, version string) []byte {
	t.Helper()
	text := "iPXE\x00\x00" + version + "\x00file:" + ScriptName + "\x00file:/" + ScriptName + "\x00vcreate\x00iflinkwait\x00"
	return append(append([]byte(text), fingerprint(t)...), "after"...)
}

// entry is one entry of a test package.
type entry struct {
	name string
	data []byte
	kind byte // of tar; 0 is a regular file
	link string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.data)), Typeflag: e.kind, Linkname: e.link, Mode: 0o644}))
		_, err := w.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func pack(t testing.TB, suffix string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	}
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// ar joins members: name, data, name, data…
func ar(members ...any) []byte {
	out := []byte("!<arch>\n")
	for i := 0; i < len(members); i += 2 {
		data := members[i+1].([]byte)
		out = fmt.Appendf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", members[i], 0, 0, 0, "100644", len(data))
		out = append(out, data...)
		if len(data)%2 == 1 {
			out = append(out, '\n')
		}
	}
	return out
}

const controlText = "Package: ipxe\nVersion: 9.9-1\nArchitecture: all\nDescription: test\n More.\n"

// deb is a package with these files, packed as the suffix says.
func deb(t testing.TB, suffix, control string, entries ...entry) []byte {
	t.Helper()
	return ar("debian-binary", []byte("2.0\n"),
		"control.tar"+suffix, pack(t, suffix, tarOf(t, entry{name: "./control", data: []byte(control)})),
		"data.tar"+suffix, pack(t, suffix, tarOf(t, entries...)))
}

// debs reads the real packages, once for all tests. Tests must not change
// them.
var debs = sync.OnceValues(func() ([]Bundle, error) {
	m, err := lab.FindMaterials()
	if err != nil {
		return nil, err
	}
	var out []Bundle
	for _, path := range m.Debs() {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		b, err := ReadDeb(filepath.Base(path), data)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
})

// bundles are Debian's: iPXE 1.21.1, iPXE 2.0.0, pxelinux, isolinux and
// syslinux-common.
func bundles(t testing.TB) []Bundle {
	t.Helper()
	lab.Need(t)
	out, err := debs()
	require.NoError(t, err)
	return out
}

// stock is made of debs, once for all tests, so that the trust for config's
// root is patched once.
var stock = sync.OnceValues(func() (*Stock, error) {
	b, err := debs()
	if err != nil {
		return nil, err
	}
	return NewStock(b...)
})

func debian(t testing.TB) *Stock {
	t.Helper()
	lab.Need(t)
	s, err := stock()
	require.NoError(t, err)
	return s
}

func newStock(t testing.TB, b ...Bundle) *Stock {
	t.Helper()
	s, err := NewStock(b...)
	require.NoError(t, err)
	return s
}

const (
	v1 = "1.21.1+git20250501.dad20602+dfsg-1"
	v2 = "2.0.0+dfsg-5"
)

// client is the certificate and key in testdata, made for these tests with
// openssl: RSA-2048, clientAuth, valid for a hundred years.
func client(t testing.TB) (cert, key []byte) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		block, _ := pem.Decode(data)
		return block.Bytes
	}
	return read("client.pem"), read("client.key")
}

func config(t testing.TB) Config {
	t.Helper()
	cert, key := client(t)
	return Config{Name: "rack1", URL: "https://ipxe.example.com", Root: sha256.Sum256([]byte("our root")), Cert: cert, Key: key}
}

// ecClient is a P-256 certificate from an EC issuer.
func ecClient(t testing.TB) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert, err = x509.CreateCertificate(rand.Reader, clientTemplate(), clientTemplate(), k.Public(), k)
	require.NoError(t, err)
	key, err = MarshalKey(k)
	require.NoError(t, err)
	return cert, key
}

func clientTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rack1"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}
