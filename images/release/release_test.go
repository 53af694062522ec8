package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func builtins(t *testing.T) Systems {
	t.Helper()
	all, err := Load(nil)
	require.NoError(t, err)
	return all
}

func ref(t *testing.T, s, arch string) Ref {
	t.Helper()
	r, err := ParseRef(s, arch)
	require.NoError(t, err)
	return r
}

func TestBuiltins(t *testing.T) {
	all := builtins(t)
	require.Equal(t, []string{"debian-installer", "fedora-coreos", "flatcar"}, all.Names())
	for _, tt := range []struct{ ref, arch, url, kernel, initrd string }{
		{
			"flatcar:stable:4230.2.0", "arm64", "https://stable.release.flatcar-linux.net",
			"arm64-usr/4230.2.0/flatcar_production_pxe.vmlinuz", "arm64-usr/4230.2.0/flatcar_production_pxe_image.cpio.gz",
		},
		{
			"fedora-coreos:next:44.20260607.1.1", "x86_64", "https://builds.coreos.fedoraproject.org",
			"prod/streams/next/builds/44.20260607.1.1/x86_64/fedora-coreos-44.20260607.1.1-live-kernel.x86_64",
			"prod/streams/next/builds/44.20260607.1.1/x86_64/fedora-coreos-44.20260607.1.1-live-initramfs.x86_64.img",
		},
		{
			"debian-installer:bookworm:20230607+deb12u15", "x86_64", "",
			"dists/bookworm/main/installer-amd64/20230607+deb12u15/images/netboot/debian-installer/amd64/linux",
			"dists/bookworm/main/installer-amd64/20230607+deb12u15/images/netboot/debian-installer/amd64/initrd.gz",
		},
	} {
		r := ref(t, tt.ref, tt.arch)
		s, err := all.Find(r)
		require.NoError(t, err)
		kernel, initrds := s.Files(r)
		require.Equal(t, tt.url, s.Expand(s.URL, r))
		require.Equal(t, tt.kernel, kernel)
		require.Equal(t, tt.initrd, initrds[0])
	}
}

func TestResolve(t *testing.T) {
	all := builtins(t)
	for name, tt := range map[string]struct{ ref, data, want, fault string }{
		"flatcar":       {ref: "flatcar:stable:current", data: "FLATCAR_BUILD=4230\nFLATCAR_VERSION=4230.2.0\nFLATCAR_VERSION_ID=4230.2.0\n", want: "4230.2.0"},
		"fedora coreos": {ref: "fedora-coreos:stable:current", data: `{"architectures":{"x86_64":{"artifacts":{"metal":{"release":"44.20260607.3.1"}}}}}`, want: "44.20260607.3.1"},
		"debian, the highest": {
			ref:  "debian-installer:bookworm:current",
			data: " ab 1 main/installer-amd64/20230607/images/SHA256SUMS\n ab 1 main/installer-amd64/current/images/SHA256SUMS\n ab 1 main/installer-amd64/20230607+deb12u9/images/SHA256SUMS\n ab 1 main/installer-amd64/20230607+deb12u15/images/SHA256SUMS\n",
			want: "20230607+deb12u15",
		},
		"nothing":      {ref: "flatcar:stable:current", data: "<html>", fault: "nothing there matches"},
		"a path":       {ref: "flatcar:stable:current", data: "FLATCAR_VERSION=../../etc\n", fault: "nothing there matches"},
		"not JSON":     {ref: "fedora-coreos:stable:current", data: "<html>", fault: "not JSON"},
		"JSON changed": {ref: "fedora-coreos:stable:current", data: `{"architectures":[]}`, fault: "nothing below"},
		"JSON number":  {ref: "fedora-coreos:stable:current", data: `{"architectures":{"x86_64":{"artifacts":{"metal":{"release":1}}}}}`, fault: "do not lead to a text"},
		"JSON path":    {ref: "fedora-coreos:stable:current", data: `{"architectures":{"x86_64":{"artifacts":{"metal":{"release":"../x"}}}}}`, fault: "version"},
		"itself":       {ref: "flatcar:stable:current", data: "FLATCAR_VERSION=current\n", fault: "which is none"},
	} {
		t.Run(name, func(t *testing.T) {
			r := ref(t, tt.ref, "")
			s, err := all.Find(r)
			require.NoError(t, err)
			got, err := s.Resolve(r, []byte(tt.data))
			if tt.fault != "" {
				require.ErrorContains(t, err, tt.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got.Version)
		})
	}
}

func TestParseRef(t *testing.T) {
	r := ref(t, "flatcar:stable:4230.2.0", "")
	require.Equal(t, "flatcar:stable:4230.2.0:x86_64", r.ID())
	require.Equal(t, r, ref(t, r.ID(), ""), "an id is a reference too")
	for _, bad := range []string{
		"", "flatcar", "flatcar:stable", "a:b:c:d", "flatcar:stable:../x", "flatcar:stable:.x", "Flatcar:stable:1", "flatcar:st/able:1",
		"flatcar:stable:" + strings.Repeat("1", 65), "flatcar:stable:1:riscv", "flatcar:..:1", "flatcar:stable:1 2",
	} {
		_, err := ParseRef(bad, "")
		require.Error(t, err, "%q", bad)
	}
	_, err := ParseRef("flatcar:stable:1:arm64", "x86_64")
	require.Error(t, err, "two architectures")
}

func TestFindRefuses(t *testing.T) {
	all := builtins(t)
	for _, tt := range []struct{ ref, arch, want string }{
		{"plan9:stable:4", "", "there is no description of plan9: there are debian-installer"},
		{"flatcar:nightly:1", "", "has no channel nightly"},
	} {
		_, err := all.Find(ref(t, tt.ref, tt.arch))
		require.ErrorContains(t, err, tt.want)
	}
}

func TestNewer(t *testing.T) {
	for _, tt := range []struct{ order, newer, older string }{
		{OrderDebian, "4230.10.0", "4230.2.0"},
		{OrderDebian, "44.20260607.3.1", "43.20260607.3.1"},
		{OrderDebian, "20230607+deb12u15", "20230607+deb12u9"},
		{OrderDebian, "v1.10.0", "v1.9.3"},
		{OrderDebian, "2.0", "2.0~rc1"},
		{OrderSemver, "1.8.0", "1.8.0-beta.1"},
		{OrderSemver, "v1.10.0", "1.9.0"},
	} {
		require.True(t, Newer(tt.order, tt.newer, tt.older), tt)
		require.False(t, Newer(tt.order, tt.older, tt.newer), tt)
		require.False(t, Newer(tt.order, tt.newer, tt.newer), tt)
	}
	require.False(t, Newer(OrderSemver, "x", "1.0.0"), "what cannot be compared is not newer")
}

const described = `name: mine
channels: [lab]
archs: {x86_64: amd64}
kernel: "{version}/vmlinuz"
signature: {kind: sha256}
`

func TestParseNamesEveryFault(t *testing.T) {
	_, err := Parse([]byte(described))
	require.NoError(t, err)
	for name, tt := range map[string]struct{ from, to, want string }{
		"unknown key":    {"channels:", "chanels: [lab]\nchannels:", "chanels"},
		"name":           {"mine", "../mine", "name:"},
		"absolute":       {"{version}/vmlinuz", "/etc/passwd", "not a path below the mirror"},
		"up":             {"{version}/vmlinuz", "../../x", "not a path below the mirror"},
		"up in between":  {"{version}/vmlinuz", "a/../../x", "not a path below the mirror"},
		"placeholder":    {"{version}", "{home}", "none of {channel}"},
		"file name":      {"vmlinuz", "linux@1", "kernel, initrds: \"linux@1\""},
		"query":          {"vmlinuz", "vmlinuz?x", "not a path"},
		"kind":           {"sha256", "md5", "signature.kind"},
		"no pin":         {"sha256", "openpgp-detached, keys: k.asc", "fingerprints: want 1"},
		"short key id":   {"sha256", "openpgp-detached, keys: k.asc, fingerprints: [E25D9AED0593B34A]", "40 or 64"},
		"no list":        {"sha256", "openpgp-digests, keys: k.asc, fingerprints: [F88CFEDEFF29A5B4D9523864E25D9AED0593B34A]", "lists: want 1"},
		"architecture":   {"x86_64", "riscv64", "archs:"},
		"url":            {"channels:", "url: file:///etc\nchannels:", "not a URL"},
		"password":       {"channels:", "url: https://a:b@c/\nchannels:", "not a URL"},
		"pattern":        {"channels:", "current: {file: v, pattern: 'x'}\nchannels:", "one group"},
		"both":           {"channels:", "current: {file: v, pattern: '(x)', json: [a]}\nchannels:", "either"},
		"two documents":  {"signature:", "---\nsignature:", "more than one"},
		"order":          {"channels:", "order: alphabetical\nchannels:", "order:"},
		"second's path":  {"sha256", "openpgp-digests, keys: k, fingerprints: [F88CFEDEFF29A5B4D9523864E25D9AED0593B34A], lists: [{file: a, signature: b}, {file: c, signature: ../d}]", "not a path"},
		"too long":       {"name:", "# " + strings.Repeat("x", MaxDescription) + "\nname:", "longer than"},
		"no architectur": {"{x86_64: amd64}", "{}", "archs: want"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(strings.Replace(described, tt.from, tt.to, 1)))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestOperatorsOwn(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		return filepath.Join(dir, name)
	}
	own := write("own.yaml", strings.Replace(described, "mine", "flatcar", 1))
	all, err := Load([]string{own, write("mine.json", `{"name":"mine","channels":["lab"],"archs":{"arm64":"arm64"},"kernel":"k","signature":{"kind":"none"}}`)})
	require.NoError(t, err)
	require.Equal(t, []string{"lab"}, all["flatcar"].Channels, "it replaces the built-in one")
	require.Equal(t, None, all["mine"].Signature.Kind)
	_, err = Load([]string{own, write("again.yaml", strings.Replace(described, "mine", "flatcar", 1)), filepath.Join(dir, "gone")})
	require.ErrorContains(t, err, "describes flatcar too")
	require.ErrorContains(t, err, "gone")
}

// TestExampleOfTheDocs: docs/images.md shows how to describe a system.
func TestExampleOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/images.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "```yaml\nname: ")
	require.True(t, found)
	example, _, found := strings.Cut(rest, "```")
	require.True(t, found)
	s, err := Parse([]byte("name: " + example))
	require.NoError(t, err)
	require.Equal(t, "talos", s.Name)
}

// FuzzDescription: whatever is accepted expands to paths below the mirror.
func FuzzDescription(f *testing.F) {
	f.Add([]byte(described), "4230.2.0", []byte("FLATCAR_VERSION=1"))
	for _, name := range []string{"flatcar", "fedora-coreos", "debian-installer"} {
		data, err := builtin.ReadFile("systems/" + name + ".yaml")
		require.NoError(f, err)
		f.Add(data, "1.2.3", []byte(`{"architectures":{}}`))
	}
	f.Fuzz(func(t *testing.T, data []byte, version string, current []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		for _, channel := range s.Channels {
			r, err := ParseRef(s.Name+":"+channel+":"+version, "x86_64")
			if err != nil {
				continue
			}
			kernel, initrds := s.Files(r)
			for _, p := range append(initrds, kernel) {
				require.True(t, filepath.IsLocal(p), "%q", p)
			}
			if s.Current.File != "" {
				_, _ = s.Resolve(r, current)
			}
		}
	})
}
