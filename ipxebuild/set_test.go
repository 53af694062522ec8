package ipxebuild

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild/bios"
	"github.com/nestboot/nestboot/ipxebuild/disk"
	"github.com/nestboot/nestboot/ipxebuild/single"
)

func hexText(d digest) string { return hex.EncodeToString(d[:]) }

func unpack(t testing.TB, data []byte) []byte {
	t.Helper()
	m, err := bios.Read(data)
	require.NoError(t, err)
	return m.Payload()
}

func newSet(t testing.TB, s *Stock, c Config) *Set {
	t.Helper()
	set, err := s.Set(c)
	require.NoError(t, err)
	return set
}

func render(t testing.TB, s *Set, name string) []byte {
	t.Helper()
	data, err := s.Render(name)
	require.NoError(t, err)
	return data
}

// names are the set's files, those that hold a key marked with *.
func names(s *Set) (out []string) {
	for _, f := range s.Files() {
		mark := ""
		if f.HoldsKey {
			mark = "*"
		}
		out = append(out, f.Name+mark)
	}
	return out
}

func TestSetFiles(t *testing.T) {
	all := bundles(t)
	amd64 := []string{
		"rack1.efi*", "rack1.ipxe*", "rack1.iso*", "rack1.raw*", "rack1.undionly*",
		"rack1/793863b1.ipxe*", "rack1/NOTICE", "rack1/ipxe-amd64.efi",
		"rack1/ipxe.lkrn", "rack1/ldlinux.c32", "rack1/lpxelinux.0", "rack1/manifest.json",
		"rack1/pxelinux.cfg/default", "rack1/script.ipxe*", "rack1/snponly.efi", "rack1/undionly.kpxe",
	}
	arm64 := []string{"rack1.arm64.efi*", "rack1.ipxe*", "rack1.iso*", "rack1.raw*", "rack1/793863b1.ipxe*", "rack1/NOTICE", "rack1/ipxe-arm64.efi", "rack1/manifest.json"}
	both := slices.Concat(amd64, []string{"rack1.arm64.efi*", "rack1/ipxe-arm64.efi"})
	slices.Sort(both)
	for name, tt := range map[string]struct {
		stock   *Stock
		change  func(*Config)
		want    []string
		missing []string // what each says
	}{
		"everything": {debian(t), func(*Config) {}, both, nil},
		"1.21.1":     {debian(t), func(c *Config) { c.Base = v1 }, both, nil},
		"x86-64":     {debian(t), func(c *Config) { c.Archs = []boot.Arch{boot.AMD64} }, amd64, nil},
		"arm64":      {debian(t), func(c *Config) { c.Archs = []boot.Arch{boot.ARM64} }, arm64, nil},
		"no syslinux": {
			newStock(t, all[:2]...), func(c *Config) { c.Archs = []boot.Arch{boot.AMD64} },
			slices.DeleteFunc(slices.Clone(amd64), func(s string) bool {
				return regexp.MustCompile(`ipxe\.lkrn|ldlinux|pxelinux|script\.ipxe`).MatchString(s)
			}),
			[]string{"rack1/lpxelinux.0: no lpxelinux.0 and ldlinux.c32", "rack1.iso and rack1.raw as CD and stick in BIOS, UEFI boots them: no isolinux.bin"},
		},
		"ntp, which BIOS lacks": {
			debian(t), func(c *Config) { c.Options.NTP, c.Archs = "192.0.2.1", []boot.Arch{boot.AMD64} },
			[]string{"rack1.efi*", "rack1.ipxe*", "rack1.iso*", "rack1.raw*", "rack1/793863b1.ipxe*", "rack1/NOTICE", "rack1/ipxe-amd64.efi", "rack1/manifest.json", "rack1/snponly.efi"},
			[]string{"rack1.undionly: ipxe.lkrn of iPXE 2.0.0+dfsg-5 has no command ntp", "rack1/undionly.kpxe: undionly.kpxe", "in BIOS, UEFI boots them: no ipxe.lkrn"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			tt.change(&c)
			set := newSet(t, tt.stock, c)
			require.Equal(t, tt.want, names(set))
			require.Len(t, set.Missing(), len(tt.missing))
			for i, want := range tt.missing {
				require.Contains(t, set.Missing()[i], want)
			}
			for _, f := range set.Files() {
				require.NotEmpty(t, render(t, set, f.Name))
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	s := debian(t)
	_, otherKey := ecClient(t)
	ecCert, ecKey := ecClient(t)
	for want, change := range map[string]func(*Config){
		"set name":                            func(c *Config) { c.Name = "../a" },
		"is not https":                        func(c *Config) { c.URL = "http://h" },
		"fingerprint of the root certificate": func(c *Config) { c.Root = digest{} },
		`no base of iPXE "3"`:                 func(c *Config) { c.Base = "3" },
		`architecture "mips"`:                 func(c *Config) { c.Archs = []boot.Arch{"mips"} },
		"list of architectures is empty":      func(c *Config) { c.Archs = []boot.Arch{} },
		"go together":                         func(c *Config) { c.Key = nil },
		"client certificate":                  func(c *Config) { c.Cert = []byte("x") },
		"private key is not DER":              func(c *Config) { c.Key = []byte("x") },
		"does not belong":                     func(c *Config) { c.Key = otherKey },
		"of type rsa2048 instead of p256":     func(c *Config) { c.KeyType = P256 },
		"a keyless set has neither":           func(c *Config) { c.Cert, c.Key, c.KeyType = nil, nil, RSA2048 },
		"expired":                             func(c *Config) { c.Now = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC) },
		"knows no ECDSA":                      func(c *Config) { c.Cert, c.Key, c.Base = ecCert, ecKey, v1 },
		"vlan 9999":                           func(c *Config) { c.Options.VLAN = 9999 },
		"has no command ntp":                  func(c *Config) { c.Options.NTP, c.Base = "192.0.2.1", v1 },
		"ipxe.example.com is a name, and static.dns": func(c *Config) {
			c.Options.Static = &Static{Address: netip.MustParsePrefix("192.0.2.7/24")}
		},
	} {
		c := config(t)
		change(&c)
		_, err := s.Set(c)
		require.ErrorContains(t, err, want)
	}
	c := config(t)
	c.Name, c.URL, c.Base = "-", "", "x"
	_, err := s.Set(c)
	for _, want := range []string{"set name", "base URL", "no base"} {
		require.ErrorContains(t, err, want, "all faults at once")
	}
	c = config(t)
	c.Cert, c.Key, c.KeyType = ecCert, ecKey, P256
	newSet(t, s, c)
}

// TestSetParts takes the files apart again: each holds the root instead of
// iPXE's, and looks for its script where no other can be planted.
func TestSetParts(t *testing.T) {
	s := debian(t)
	for _, version := range s.Versions() {
		c := config(t)
		c.Base = version
		set := newSet(t, s, c)
		script := render(t, set, "rack1/"+set.Script())
		e, err := single.ReadEFI(render(t, set, "rack1.efi"))
		require.NoError(t, err)
		require.Equal(t, script, e.Script)
		b, err := single.ReadBIOS(render(t, set, "rack1.undionly"))
		require.NoError(t, err)
		require.Equal(t, script, b.Script)
		require.Equal(t, render(t, set, "rack1/ipxe.lkrn"), b.LKRN)
		image, err := disk.Read(render(t, set, "rack1.iso"))
		require.NoError(t, err)
		require.True(t, image.BIOS)
		require.Equal(t, render(t, set, "rack1.iso"), render(t, set, "rack1.raw"))
		programs := map[string][]byte{
			"single": e.IPXE, "snponly": render(t, set, "rack1/snponly.efi"), "full": render(t, set, "rack1/ipxe-amd64.efi"),
			"arm64": render(t, set, "rack1/ipxe-arm64.efi"),
		}
		for _, f := range image.ESP {
			p, err := single.ReadEFI(f.Data)
			require.NoError(t, err)
			require.Equal(t, script, p.Script)
			programs[f.Path] = p.IPXE
		}
		require.Len(t, programs, 6)
		for name, data := range programs {
			require.Equal(t, 1, bytes.Count(data, c.Root[:]), name)
			require.Zero(t, bytes.Count(data, fingerprint(t)), name)
			require.False(t, bytes.Contains(data, []byte(ScriptName)), name)
			asks := set.Script()
			if e := strings.HasPrefix(name, "EFI") || name == "single"; e {
				asks = nameFrom("single", script)
			}
			require.Equal(t, 1, bytes.Count(data, []byte("file:"+asks+"\x00")), name)
			require.Equal(t, 1, bytes.Count(data, []byte("file:/"+asks+"\x00")), name)
		}
		for _, name := range []string{"rack1/undionly.kpxe", "rack1/ipxe.lkrn"} {
			code := unpack(t, render(t, set, name))
			require.Equal(t, 1, bytes.Count(code, c.Root[:]), name)
		}
	}
}

func TestSetNamesItsScript(t *testing.T) {
	s := debian(t)
	a, b := config(t), config(t)
	b.Name = "rack2"
	one, two := newSet(t, s, a), newSet(t, s, b)
	require.Regexp(t, `^[0-9a-f]{8}\.ipxe$`, one.Script())
	require.NotEqual(t, one.Script(), two.Script())
	require.Len(t, one.Script(), len(ScriptName))
}

func TestSetIsReproducible(t *testing.T) {
	another := newStock(t, bundles(t)...)
	for _, keyless := range []bool{false, true} {
		c := config(t)
		if keyless {
			c.Cert, c.Key = nil, nil
		}
		a, b := newSet(t, debian(t), c), newSet(t, another, c)
		for _, f := range a.Files() {
			require.True(t, bytes.Equal(render(t, a, f.Name), render(t, b, f.Name)), f.Name)
		}
	}
}

func TestKeylessSetHoldsNoKey(t *testing.T) {
	c := config(t)
	key := []byte(hex.EncodeToString(c.Key[100:116]))
	keyed := newSet(t, debian(t), c)
	c.Cert, c.Key = nil, nil
	set := newSet(t, debian(t), c)
	for _, f := range set.Files() {
		require.False(t, f.HoldsKey, f.Name)
		data := bytes.ReplaceAll(render(t, set, f.Name), []byte{0}, nil) // load options are UTF-16
		require.False(t, bytes.Contains(data, []byte("set privkey")), f.Name)
	}
	for _, f := range keyed.Files() {
		data := bytes.ReplaceAll(render(t, keyed, f.Name), []byte{0}, nil)
		require.Equal(t, f.HoldsKey, bytes.Contains(data, key), f.Name)
	}
}

// TestSignedPair: signed programs are handed out as they are, with the script
// beside them under its stock name.
func TestSignedPair(t *testing.T) {
	signed, err := ReadBase("ipxe.efi", sign(efi(t, 0x8664, []byte("\n,iPXE,ipxe.efi,2.0.0+dfsg-5,https://ipxe.org\n"))))
	require.NoError(t, err)
	shim, err := ReadBase("shimx64.efi.signed", sign(efi(t, 0x8664, utf16("\\grubx64.efi\x00"))))
	require.NoError(t, err)
	second := Bundle{Origin: Origin{Package: "signed", File: "signed"}, Bases: []Base{signed}}
	first := Bundle{Origin: Origin{Package: "shim", File: "shim"}, Bases: []Base{shim}}

	unsigned := bundles(t)[1]
	unsigned.Bases = slices.DeleteFunc(slices.Clone(unsigned.Bases), func(b Base) bool { return b.Kind != KindEFI })
	set := newSet(t, newStock(t, unsigned, second), config(t))
	require.NotContains(t, names(set), "rack1/shimx64.efi")
	require.Contains(t, strings.Join(set.Missing(), "\n"), "no shim that starts it")

	set = newSet(t, newStock(t, unsigned, second, first), config(t))
	require.Equal(t, shim.Data, render(t, set, "rack1/shimx64.efi"))
	require.Equal(t, signed.Data, render(t, set, "rack1/grubx64.efi"))
	require.Equal(t, render(t, set, "rack1/"+set.Script()), render(t, set, "rack1/autoexec.ipxe"))
	require.Contains(t, names(set), "rack1/autoexec.ipxe*")
	require.Contains(t, string(render(t, set, "rack1/NOTICE")), "shim")

	set = newSet(t, newStock(t, second, first), config(t))
	require.Equal(t, []string{"rack1.ipxe*", "rack1/NOTICE", "rack1/autoexec.ipxe*", "rack1/grubx64.efi", "rack1/manifest.json", "rack1/shimx64.efi"}, names(set))
	require.NotEmpty(t, set.Missing())
}

func TestLoaderConfig(t *testing.T) {
	c := config(t)
	c.Options.Console.Serial = "ttyS1,9600"
	set := newSet(t, debian(t), c)
	require.Equal(t, "SERIAL 1 9600\nDEFAULT nestboot\nPROMPT 0\nLABEL nestboot\n  KERNEL ipxe.lkrn\n  INITRD script.ipxe\n",
		string(render(t, set, "rack1/pxelinux.cfg/default")))
}

func TestRenderRefusesOthers(t *testing.T) {
	set := newSet(t, debian(t), config(t))
	for _, name := range []string{"", "rack1", "rack1/../rack1.efi", "rack2.efi", "rack1/ipxe-shimx64.efi"} {
		_, err := set.Render(name)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	data := render(t, set, "rack1.ipxe")
	clear(data)
	require.NotEqual(t, data, render(t, set, "rack1.ipxe"), "callers get a copy")
}

func TestNotice(t *testing.T) {
	set := newSet(t, debian(t), config(t))
	notice := string(render(t, set, "rack1/NOTICE"))
	head, terms, _ := strings.Cut(notice, "\n=====")
	golden(t, "notice.txt", []byte(head))
	require.Equal(t, 1, strings.Count(terms, "Terms of isolinux"), "each text once")
	require.Equal(t, 1, strings.Count(terms, "Upstream-Name: SYSLINUX"))
	require.Equal(t, 1, strings.Count(terms, "Upstream-Name: ipxe"))
	require.NotRegexp(t, `(?i)deb\.debian|ftp\.|mirror|snapshot\.`, head)
}

// TestManifestGolden masks the digests and sizes of files, which change with
// whatever packs them.
func TestManifestGolden(t *testing.T) {
	set := newSet(t, debian(t), config(t))
	data, err := set.Manifest()
	require.NoError(t, err)
	require.Equal(t, data, render(t, set, "rack1/manifest.json"))
	var m manifest
	require.NoError(t, json.Unmarshal(data, &m))
	for i, f := range m.Files {
		content := render(t, set, f.Name)
		require.Equal(t, len(content), f.Size)
		require.Equal(t, hexText(sha256.Sum256(content)), f.SHA256)
		m.Files[i].Size, m.Files[i].SHA256 = 0, "masked"
	}
	masked, err := json.MarshalIndent(m, "", "  ")
	require.NoError(t, err)
	golden(t, "manifest.json", append(masked, '\n'))
}

func TestWriteTo(t *testing.T) {
	set := newSet(t, debian(t), config(t))
	dir := filepath.Join(t.TempDir(), "out")
	require.NoError(t, os.Mkdir(dir, 0o755), "an empty folder is no hindrance")
	require.NoError(t, set.WriteTo(dir))
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found = append(found, name)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(render(t, set, name), data), name)
		return nil
	}))
	require.Len(t, found, len(set.Files()))
	for _, f := range set.Files() {
		st, err := os.Stat(filepath.Join(dir, f.Name))
		require.NoError(t, err)
		want := os.FileMode(0o644)
		if f.HoldsKey {
			want = 0o600
		}
		require.Equal(t, want, st.Mode().Perm(), f.Name)
	}
	st, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())

	require.ErrorContains(t, set.WriteTo(dir), "must not exist or be empty")
	left, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, left, 1, "what could not be put in place is removed")
	require.Error(t, set.WriteTo(filepath.Join(dir, "rack1.efi", "x")))
}

// Test100SetsAtATime: sets made at the same time, with roots and versions
// that they share, are the same as one made alone.
func Test100SetsAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("renders a gigabyte")
	}
	s := newStock(t, bundles(t)...)
	cert, key := client(t)
	config := func(i int) Config {
		return Config{
			Name: fmt.Sprintf("rack%d", i), URL: "https://ipxe.example.com", Root: sha256.Sum256([]byte{byte(i % 3)}),
			Cert: cert, Key: key, Base: s.Versions()[i%2],
		}
	}
	manifests := make([][]byte, 100)
	var wg sync.WaitGroup
	for i := range manifests {
		wg.Go(func() {
			set, err := s.Set(config(i))
			require.NoError(t, err)
			manifests[i], err = set.Manifest()
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.Len(t, s.cache.entries, 6, "two versions, three roots")
	alone := newStock(t, bundles(t)...)
	for i, got := range manifests {
		require.Contains(t, string(got), fmt.Sprintf(`"name": "rack%d.efi"`, i))
		if i%7 == 0 { // all roots and both versions are among these
			want, err := newSet(t, alone, config(i)).Manifest()
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		}
	}
}

func TestCheckSetName(t *testing.T) {
	for name, ok := range map[string]bool{
		"rack1": true, "a": true, "a-b": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "a-": false, "A": false, "a/b": false, "..": false, "a b": false, strings.Repeat("a", 33): false,
		"ipxe": false, "artifacts": false, "api": false, "autoexec": false, "0badcafe": false, "0badcafe1": true, "ipxe2": true,
	} {
		require.Equal(t, ok, CheckSetName(name) == nil, "%q", name)
	}
}
