package ipxebuild

import (
	"debug/pe"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInspectEveryFormat(t *testing.T) {
	s := debian(t)
	for _, version := range s.Versions() {
		c := config(t)
		c.Base = version
		inspectAll(t, newSet(t, s, c), c)
	}
	c := config(t)
	c.Cert, c.Key, c.Base = nil, nil, v2
	inspectAll(t, newSet(t, s, c), c)
}

func inspectAll(t *testing.T, set *Set, c Config) {
	t.Helper()
	for _, f := range set.Files() {
		if strings.Contains(f.Name, "linux") || f.Format == FormatNotice || f.Format == FormatRaw {
			continue // nothing of iPXE's in it, or the same bytes as the ISO
		}
		t.Run(c.Base+" "+f.Name, func(t *testing.T) {
			r, err := Inspect(f.Name, render(t, set, f.Name))
			require.NoError(t, err)
			checkReport(t, r, f, c)
		})
	}
}

// checkReport compares with what the set was made of.
func checkReport(t *testing.T, r Report, f FileInfo, c Config) {
	t.Helper()
	program := strings.HasSuffix(f.Name, ".efi") || f.Format != FormatChain && !strings.HasSuffix(f.Name, ".ipxe")
	if program {
		require.Equal(t, hexText(c.Root), r.Root)
		want := c.Base
		if f.Format == FormatUndionly {
			want, _, _ = strings.Cut(markedVersion(c.Base, c.Root), markSign)
		}
		require.Equal(t, want, r.Version)
	}
	require.Equal(t, f.HoldsKey, r.HoldsKey)
	switch f.Format {
	case FormatISO, FormatRaw:
		require.Equal(t, string(FormatISO), r.Format)
		require.Len(t, r.Parts, 4, "ipxe.lkrn, its script and two for UEFI")
	case FormatEFIAMD64, FormatEFIARM64, FormatPXE, FormatChain, FormatManifest:
		require.Equal(t, string(f.Format), r.Format)
	default:
		require.NotEmpty(t, r.Format)
		return
	}
	require.Equal(t, "rack1", r.Set)
	require.Equal(t, c.URL, r.URL)
	if c.Key == nil {
		require.Empty(t, r.Subject)
		require.True(t, r.Expires.IsZero())
		return
	}
	require.Equal(t, "CN=rack1,O=nestboot", r.Subject)
	require.Equal(t, 2126, r.Expires.Year())
}

func TestInspectStock(t *testing.T) {
	for _, b := range bundles(t)[:2] {
		for _, x := range b.Bases {
			r, err := Inspect(x.Name, x.Data)
			require.NoError(t, err)
			require.Equal(t, RootStock, r.Root, x.Name)
			require.Equal(t, b.Origin.Version, r.Version, x.Name)
			require.False(t, r.HoldsKey)
		}
	}
}

func TestInspectSigned(t *testing.T) {
	r, err := Inspect("x", sign(efi(t, pe.IMAGE_FILE_MACHINE_AMD64, []byte(",iPXE,ipxe.efi,2.0.0,https://ipxe.org"))))
	require.NoError(t, err)
	require.Equal(t, Report{Format: "signed-efi", Version: "2.0.0", Root: RootFirmware}, r)
	r, err = Inspect("x", sign(efi(t, pe.IMAGE_FILE_MACHINE_AMD64, []byte("shim"))))
	require.NoError(t, err)
	require.Equal(t, Report{Format: "signed-efi"}, r)
}

// TestInspectSaysUnknown: a root that can't be found for sure is not guessed.
func TestInspectSaysUnknown(t *testing.T) {
	r, err := Inspect("x", efi(t, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(t, "2.0.0")))
	require.NoError(t, err)
	require.Equal(t, Report{Format: "ipxe-efi", Version: "2.0.0", Root: RootUnknown}, r)
}

func TestInspectScripts(t *testing.T) {
	for script, want := range map[string]Report{
		"#!ipxe\n": {Format: "script"},
		"#!ipxe\n# nestboot, artifact set a. x\nchain https://h:1/ipxe/boot?u=1\n": {Format: "ipxe-chain", Set: "a", URL: "https://h:1"},
		"#!ipxe\n# nestboot, artifact set ../a. x\n":                               {Format: "script"},
		"#!ipxe\nchain http://h/ipxe/boot?u=1\nset privkey\n":                      {Format: "script"},
		"#!ipxe\nset privkey 00\n":                                                 {Format: "script", HoldsKey: true},
	} {
		r, err := Inspect("x", []byte(script))
		require.NoError(t, err)
		require.Equal(t, want, r, script)
	}
}

func TestInspectRefuses(t *testing.T) {
	set := newSet(t, debian(t), config(t))
	iso, one, undi := render(t, set, "rack1.iso"), render(t, set, "rack1.efi"), render(t, set, "rack1.undionly")
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":               {nil, "not a format"},
		"text":                {[]byte("hello"), "not a format"},
		"large":               {make([]byte, maxInspect+1), "more than any"},
		"large and nothing":   {make([]byte, maxBase+1), "not a format"},
		"other JSON":          {[]byte("{}"), "not a manifest"},
		"broken JSON":         {[]byte("{"), "not a manifest"},
		"bad certificate":     {[]byte("#!ipxe\nset cert:hexraw 00\n"), "client certificate"},
		"bad hex":             {[]byte("#!ipxe\nset cert:hexraw xx\n"), "client certificate"},
		"long script":         {append([]byte("#!ipxe\n"), make([]byte, maxScript)...), "not an iPXE script"},
		"other program":       {efi(t, pe.IMAGE_FILE_MACHINE_AMD64, []byte("x")), "not iPXE"},
		"image cut short":     {iso[:len(iso)/2], "read disk image"},
		"single cut short":    {one[:len(one)/2], "UEFI program"},
		"undionly cut short":  {undi[:len(undi)-16], "cut short"},
		"a program cut short": {render(t, set, "rack1/snponly.efi")[:1000], "UEFI program"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Inspect("some/file", tt.data)
			require.ErrorContains(t, err, "some/file")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("#!ipxe\n# nestboot, artifact set a. x\nset privkey 00\nchain https://h/ipxe/boot?u\n"))
	f.Add([]byte(`{"set":"a","files":[{"name":"b"}],"certificate":{"subject":"x","not_after":"2026-01-01T00:00:00Z"}}`))
	f.Add(efi(f, pe.IMAGE_FILE_MACHINE_AMD64, ipxe(f, "2.0.0")))
	f.Add(sign(efi(f, pe.IMAGE_FILE_MACHINE_ARM64, ipxe(f, "2.0.0"))))
	f.Add([]byte(`{"files":[` + strings.Repeat("{},", maxManifest/3-8) + `{}]}`)) // small to send, large to keep
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		r, err := Inspect("x", data)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "all that was ever allocated")
		if err != nil {
			require.Equal(t, Report{}, r)
			return
		}
		require.NotEmpty(t, r.Format)
		require.Less(t, time.Since(start), 10*time.Second)
	})
}
