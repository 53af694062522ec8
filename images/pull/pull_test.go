package pull

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nestboot/nestboot/images/depot"
	"github.com/nestboot/nestboot/images/fetch"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
	"github.com/nestboot/nestboot/integration/mirror"
)

var (
	day    = 24 * time.Hour
	made   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now    = made.Add(300 * day)
	kernel = bytes.Repeat([]byte("kernel"), 50_000)
	initrd = bytes.Repeat([]byte("initrd"), 50_000)
)

// world is a mirror and an installation that pulls from it.
type world struct {
	*Puller
	t      *testing.T
	mirror *mirror.Mirror
	maker  *mirror.Maker
	told   []Progress
}

func newWorld(t *testing.T, describe func(*mirror.Maker) string) *world {
	t.Helper()
	w := &world{t: t, mirror: mirror.New(t), maker: mirror.NewMaker(t, made, 100*day)}
	dir := t.TempDir()
	described := filepath.Join(dir, "system.yaml")
	require.NoError(t, os.WriteFile(described, []byte(describe(w.maker)), 0o600))
	systems, err := release.Load([]string{described})
	require.NoError(t, err)
	d, err := depot.Open(depot.Config{Dir: filepath.Join(dir, "images"), InUse: func() []string { return nil }, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	require.NoError(t, err)
	require.NoError(t, d.Prepare())
	client, err := fetch.NewClient(fetch.Config{CA: w.mirror.CAFile, Mirrors: []string{w.mirror.URL}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	w.Puller = &Puller{Depot: d, Client: client, Systems: systems, Now: func() time.Time { return now }}
	return w
}

func (w *world) pull(ref string, change ...func(*Request)) (depot.Manifest, error) {
	w.t.Helper()
	r := Request{Ref: ref, Mirror: w.mirror.URL}
	for _, f := range change {
		f(&r)
	}
	return w.Pull(w.t.Context(), r, func(p Progress) { w.told = append(w.told, p) })
}

// nothing demands that nothing of a release can be seen.
func (w *world) nothing() {
	w.t.Helper()
	list, err := w.Depot.List()
	require.NoError(w.t, err)
	require.Empty(w.t, list)
}

// served is what machines would get.
func (w *world) served(m depot.Manifest) []string {
	w.t.Helper()
	img, _, err := w.Depot.Image(w.t.Context(), "lab", m.Ref)
	require.NoError(w.t, err)
	var out []string
	r, err := img.Kernel.Reader()
	require.NoError(w.t, err)
	data, err := io.ReadAll(r)
	require.NoError(w.t, err)
	out = append(out, string(data))
	for _, f := range img.Initrds {
		r, err := f.Reader()
		require.NoError(w.t, err)
		data, err := io.ReadAll(r)
		require.NoError(w.t, err)
		out = append(out, string(data))
	}
	require.NoError(w.t, img.Close())
	return out
}

func code(err error) string {
	var r *signature.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

func TestPullFlatcar(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "4230.2.0", kernel, initrd, made.Add(day))
	m, err := w.pull("flatcar:stable:current")
	require.NoError(t, err)
	require.Equal(t, "flatcar:stable:4230.2.0:x86_64", m.ID(), "current is resolved once, and not kept")
	require.Contains(t, w.told[0].Text, "flatcar:stable is at 4230.2.0 now")
	require.Equal(t, []string{"flatcar.first_boot=1"}, m.Args)
	require.Equal(t, w.maker.Fingerprint(), m.Proof.Signed.Key)
	require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))

	before := len(w.mirror.Requests())
	again, err := w.pull("flatcar:stable:4230.2.0")
	require.NoError(t, err)
	require.Equal(t, m, again)
	require.Len(t, w.mirror.Requests(), before, "what is here is not fetched")
}

func TestPullDebian(t *testing.T) {
	w := newWorld(t, mirror.DebianSystem)
	w.mirror.Debian(w.maker, "20250803+deb13u2", kernel, initrd, made.Add(day))
	m, err := w.pull("debian-installer:trixie:current")
	require.NoError(t, err)
	require.Equal(t, "debian-installer:trixie:20250803+deb13u2:x86_64", m.ID())
	require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))
}

// TestT29_AnotherChannelsList: genuine, and shown in the place of another.
func TestT29_AnotherChannelsList(t *testing.T) {
	w := newWorld(t, mirror.DebianSystem)
	w.mirror.Debian(w.maker, "20250803", kernel, initrd, made.Add(day))
	dir := t.TempDir()
	w.mirror.WriteTo(t, dir)
	require.NoError(t, os.Rename(filepath.Join(dir, "dists/trixie"), filepath.Join(dir, "dists/bookworm")))
	_, err := w.pull("debian-installer:bookworm:current", func(r *Request) { r.Mirror, r.Folder = "", dir })
	require.Equal(t, signature.CodeBad, code(err), "%v", err)
	require.ErrorContains(t, err, "Codename: bookworm")
	w.nothing()
}

// TestPullInlineLists: Flatcar has, beside its .sig, a signed list of digests for
// each file, of which SHA-512 counts and MD5 and SHA-1 do not.
func TestPullInlineLists(t *testing.T) {
	describe := func(m *mirror.Maker) string {
		return `name: flatcar
channels: [stable]
archs: {x86_64: amd64}
kernel: "{version}/vmlinuz"
initrds: ["{version}/initrd"]
signature:
  kind: openpgp-digests
  lists:
    - {file: "{version}/vmlinuz.DIGESTS.asc", signature: inline}
    - {file: "{version}/initrd.DIGESTS.asc", signature: inline}
  keys: keys.asc
  fingerprints: [` + m.Fingerprint() + "]\n"
	}
	list := func(name string, data []byte) []byte {
		return fmt.Appendf(nil, "# MD5 HASH\n%032x  %s\n# SHA512 HASH\n%x  %s\n", 0, name, sha512.Sum512(data), name)
	}
	w := newWorld(t, describe)
	w.mirror.Put("keys.asc", w.maker.Keys())
	for name, data := range map[string][]byte{"vmlinuz": kernel, "initrd": initrd} {
		w.mirror.Put("1.0/"+name, data)
		w.mirror.Put("1.0/"+name+".DIGESTS.asc", w.maker.SignInline(list(name, data), made.Add(day)))
	}
	m, err := w.pull("flatcar:stable:1.0")
	require.NoError(t, err)
	require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))

	w = newWorld(t, describe)
	w.mirror.Put("keys.asc", w.maker.Keys())
	w.mirror.Put("1.0/vmlinuz", kernel)
	w.mirror.Put("1.0/initrd", kernel) // a file of the same maker, in the place of another
	w.mirror.Put("1.0/vmlinuz.DIGESTS.asc", w.maker.SignInline(list("vmlinuz", kernel), made.Add(day)))
	w.mirror.Put("1.0/initrd.DIGESTS.asc", w.maker.SignInline(list("initrd", initrd), made.Add(day)))
	_, err = w.pull("flatcar:stable:1.0")
	require.Equal(t, signature.CodeBad, code(err), "%v", err)
	w.mirror.Put("1.0/initrd.DIGESTS.asc", w.maker.SignInline(list("another", kernel), made.Add(day)))
	_, err = w.pull("flatcar:stable:1.0")
	require.ErrorContains(t, err, "is in no list that is signed")
	w.nothing()
}

func TestPullFromFolder(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "4230.2.0", kernel, initrd, made.Add(day))
	dir := t.TempDir()
	w.mirror.WriteTo(t, dir)
	m, err := w.pull("flatcar:stable:current", func(r *Request) { r.Mirror, r.Folder = "", dir })
	require.NoError(t, err)
	require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))
	require.Empty(t, w.mirror.Requests())
}

func TestT28_OneFlippedBitIsNeverVisible(t *testing.T) {
	flip := func(data []byte) []byte {
		out := bytes.Clone(data)
		out[len(out)/3] ^= 0x10
		return out
	}
	for _, path := range []string{"flatcar_production_pxe.vmlinuz", "flatcar_production_pxe_image.cpio.gz"} {
		w := newWorld(t, mirror.FlatcarSystem)
		w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
		good := map[string][]byte{"flatcar_production_pxe.vmlinuz": kernel, "flatcar_production_pxe_image.cpio.gz": initrd}[path]
		w.mirror.Put("amd64-usr/1.0/"+path, flip(good))
		_, err := w.pull("flatcar:stable:1.0")
		require.Equal(t, signature.CodeBad, code(err), "%v", err)
		w.nothing()
		w.mirror.Put("amd64-usr/1.0/"+path, good)
		m, err := w.pull("flatcar:stable:1.0")
		require.NoError(t, err, "what was wrong is not gone on with")
		require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))
	}
	base := "dists/trixie/main/installer-amd64/20250803/images/"
	for _, path := range []string{"dists/trixie/Release", base + "SHA256SUMS", base + "netboot/debian-installer/amd64/linux"} {
		w := newWorld(t, mirror.DebianSystem)
		w.mirror.Debian(w.maker, "20250803", kernel, initrd, made.Add(day))
		w.mirror.WriteTo(t, t.TempDir())
		data, err := w.Client.Site(w.mirror.URL, false)
		require.NoError(t, err)
		text, err := data.Small(t.Context(), path, 1<<20)
		require.NoError(t, err)
		w.mirror.Put(path, flip(text))
		_, err = w.pull("debian-installer:trixie:20250803")
		require.Equal(t, signature.CodeBad, code(err), "%s: %v", path, err)
		w.nothing()
	}
}

func TestT29_FourRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(*world)
		want    string
	}{
		"wrong key": {func(w *world) {
			w.mirror.Flatcar(mirror.NewMaker(w.t, made, 0), "1.0", kernel, initrd, made.Add(day))
			w.mirror.Put("keys.asc", w.maker.Keys())
		}, signature.CodeWrongKey},
		"keys of somebody else": {func(w *world) {
			w.mirror.Flatcar(mirror.NewMaker(w.t, made, 0), "1.0", kernel, initrd, made.Add(day))
		}, signature.CodeWrongKey},
		"expired subkey": {func(w *world) {
			w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(101*day))
		}, signature.CodeExpiredKey},
		"downgrade": {func(w *world) {
			w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
			w.mirror.Flatcar(w.maker, "2.0", kernel, initrd, made.Add(day))
			m, err := w.pull("flatcar:stable:2.0")
			require.NoError(w.t, err)
			require.NoError(w.t, w.Depot.Remove(m.Ref))
		}, signature.CodeDowngrade},
		"bad signature": {func(w *world) {
			w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
			w.mirror.Put("amd64-usr/1.0/flatcar_production_pxe.vmlinuz.sig", w.maker.Sign([]byte("another file"), made.Add(day)))
		}, signature.CodeBad},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, mirror.FlatcarSystem)
			tt.prepare(w)
			_, err := w.pull("flatcar:stable:1.0")
			require.Equal(t, tt.want, code(err), "%v", err)
			w.nothing()
			t.Log(err)
		})
	}
}

// TestT29_CurrentNeverGoesBack: both are here, and the mirror has forgotten one.
func TestT29_CurrentNeverGoesBack(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	for _, version := range []string{"1.0", "2.0"} {
		w.mirror.Flatcar(w.maker, version, kernel, initrd, made.Add(day))
		_, err := w.pull("flatcar:stable:current")
		require.NoError(t, err)
	}
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
	_, err := w.pull("flatcar:stable:current")
	require.Equal(t, signature.CodeDowngrade, code(err), "%v", err)
	_, err = w.pull("flatcar:stable:1.0")
	require.NoError(t, err, "by its number it is here")
	_, err = w.pull("flatcar:stable:current", func(r *Request) { r.Force = true })
	require.NoError(t, err)
	_, err = w.pull("flatcar:stable:current")
	require.NoError(t, err, "the mark has come down")
}

// TestT29_MixedReleases: files of an older release, with its signatures, below the
// number of a newer one.
func TestT29_MixedReleases(t *testing.T) {
	old := bytes.Repeat([]byte("older."), 50_000)
	for name, replaced := range map[string][]string{
		"kernel": {"flatcar_production_pxe.vmlinuz"},
		"initrd": {"flatcar_production_pxe_image.cpio.gz"},
		"both":   {"flatcar_production_pxe.vmlinuz", "flatcar_production_pxe_image.cpio.gz"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, mirror.FlatcarSystem)
			w.mirror.Flatcar(w.maker, "2.0", kernel, initrd, made.Add(50*day))
			m, err := w.pull("flatcar:stable:2.0")
			require.NoError(t, err)
			w.mirror.Flatcar(w.maker, "3.0", kernel, initrd, made.Add(60*day))
			for _, file := range replaced {
				w.mirror.Put("amd64-usr/3.0/"+file, old)
				w.mirror.Put("amd64-usr/3.0/"+file+".sig", w.maker.Sign(old, made.Add(day)))
			}
			_, err = w.pull("flatcar:stable:3.0")
			require.Equal(t, signature.CodeDowngrade, code(err), "%v", err)
			list, err := w.Depot.List()
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.Equal(t, m.ID(), list[0].ID())
			forced, err := w.pull("flatcar:stable:3.0", func(r *Request) { r.Force = true })
			require.NoError(t, err)
			require.Equal(t, made.Add(day), forced.Proof.Signed.At, "the oldest is shown")
		})
	}
}

func TestForceTakesAnOlderOne(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
	w.mirror.Flatcar(w.maker, "2.0", kernel, initrd, made.Add(day))
	_, err := w.pull("flatcar:stable:2.0")
	require.NoError(t, err)
	_, err = w.pull("flatcar:stable:1.0", func(r *Request) { r.Force = true })
	require.NoError(t, err)
}

func TestKeysOfAnEarlierPull(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
	_, err := w.pull("flatcar:stable:1.0")
	require.NoError(t, err)
	w.mirror.Flatcar(w.maker, "2.0", kernel, initrd, made.Add(day))
	w.mirror.Before(func(rw http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, "keys.asc") {
			rw.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	})
	_, err = w.pull("flatcar:stable:2.0")
	require.NoError(t, err)
	w2 := newWorld(t, mirror.FlatcarSystem)
	w2.mirror.Flatcar(w2.maker, "1.0", kernel, initrd, made.Add(day))
	keys := string(w2.maker.Keys())
	w2.mirror.Put("keys.asc", []byte("<html>"))
	_, err = w2.pull("flatcar:stable:1.0")
	require.ErrorContains(t, err, "public keys of flatcar")
	_, err = w2.pull("flatcar:stable:1.0", func(r *Request) { r.Keys = keys })
	require.NoError(t, err, "given by the operator")
}

// TestT29_RevocationsStay: the mirror shows a revocation once, with a pull that is
// refused, and then the older keys again.
func TestT29_RevocationsStay(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
	good := w.maker.Keys()
	w.maker.RevokeSubkey(packet.NoReason, made.Add(2*day))
	w.mirror.Put("keys.asc", w.maker.Keys())
	_, err := w.pull("flatcar:stable:1.0")
	require.Equal(t, signature.CodeExpiredKey, code(err), "%v", err)
	w.mirror.Put("keys.asc", good)
	for _, keys := range []string{"", string(good)} {
		_, err = w.pull("flatcar:stable:1.0", func(r *Request) { r.Keys = keys })
		require.Equal(t, signature.CodeExpiredKey, code(err), "%v", err)
	}
	w.nothing()
	w.maker.AddSubkey(made.Add(3*day), 0)
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(4*day))
	_, err = w.pull("flatcar:stable:1.0")
	require.NoError(t, err, "a new subkey comes to what was known")
}

const unsigned = `name: lab
channels: [mine]
archs: {x86_64: amd64}
kernel: "{version}/vmlinuz"
initrds: ["{version}/initrd"]
args: [console=ttyS0]
signature: {kind: KIND}
`

func TestWithoutSignatures(t *testing.T) {
	sum := func(data []byte) string {
		s := sha256.Sum256(data)
		return hex.EncodeToString(s[:])
	}
	digests := map[string]string{"vmlinuz": sum(kernel), "initrd": strings.ToUpper(sum(initrd))}
	wrong := map[string]string{"vmlinuz": sum(kernel), "initrd": sum(kernel)}
	for name, tt := range map[string]struct {
		kind   string
		change func(*Request)
		want   string
	}{
		"no digests":         {release.SHA256, func(*Request) {}, "--sha256 FILE=DIGEST for vmlinuz, initrd"},
		"digests":            {release.SHA256, func(r *Request) { r.SHA256 = digests }, ""},
		"wrong digest":       {release.SHA256, func(r *Request) { r.SHA256 = wrong }, "not the given"},
		"nothing":            {release.None, func(*Request) {}, "--unsigned"},
		"nothing, allowed":   {release.None, func(r *Request) { r.Unsigned = true }, ""},
		"nothing but digest": {release.None, func(r *Request) { r.SHA256 = digests }, ""},
		"both":               {release.None, func(r *Request) { r.Unsigned, r.SHA256 = true, wrong }, "not the given"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(*mirror.Maker) string { return strings.Replace(unsigned, "KIND", tt.kind, 1) })
			w.mirror.Put("7/vmlinuz", kernel)
			w.mirror.Put("7/initrd", initrd)
			m, err := w.pull("lab:mine:7", tt.change)
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				w.nothing()
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))
		})
	}
}

func TestPullRefuses(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	for name, tt := range map[string]struct {
		change func(*Request)
		want   string
	}{
		"no such system":    {func(r *Request) { r.Ref = "plan9:a:1" }, "no description"},
		"no such release":   {func(r *Request) { r.Ref = "flatcar:stable:9.9" }, "public keys"},
		"nowhere":           {func(r *Request) { r.Mirror = "" }, "names no site"},
		"both":              {func(r *Request) { r.Folder = "/tmp" }, "do not go together"},
		"plain":             {func(r *Request) { r.Mirror = "http://mirror.example.com" }, "--plain-http"},
		"T25 not a mirror":  {func(r *Request) { r.Mirror = "https://127.0.0.1:1" }, "downloads.mirrors"},
		"T25 metadata":      {func(r *Request) { r.Mirror, r.PlainHTTP = "http://169.254.169.254", true }, "no address of a mirror"},
		"T25 mapped":        {func(r *Request) { r.Mirror = "https://[::ffff:127.0.0.1]:1" }, "downloads.mirrors"},
		"relative folder":   {func(r *Request) { r.Mirror, r.Folder = "", "x" }, "from the root"},
		"architecture":      {func(r *Request) { r.Arch = "riscv64" }, "neither"},
		"current not there": {func(r *Request) { r.Ref = "flatcar:stable:current" }, "find the current version"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.pull("flatcar:stable:1.0", tt.change)
			require.ErrorContains(t, err, tt.want)
		})
	}
	w.nothing()
}

func TestDigestsThatAreGivenAreUsed(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
	for want, given := range map[string]map[string]string{
		"it has flatcar_production_pxe.vmlinuz, flatcar": {"vmlinux": strings.Repeat("0", 64)},
		"want 64 hexadecimal digits":                     {"flatcar_production_pxe.vmlinuz": strings.Repeat("0", 63)},
	} {
		for _, ref := range []string{"flatcar:stable:1.0", "flatcar:stable:current"} {
			_, err := w.pull(ref, func(r *Request) { r.SHA256 = given })
			require.ErrorContains(t, err, want)
			require.ErrorAs(t, err, new(*Invalid))
		}
	}
	w.nothing()
}

// TestVersionInTheURL: what is recorded as version 7 comes from where 7 is.
func TestVersionInTheURL(t *testing.T) {
	w := newWorld(t, func(*mirror.Maker) string {
		return strings.Replace(unsigned, "KIND", release.None, 1) + "current: {file: version.txt, pattern: '(\\d+)'}\n"
	})
	w.mirror.Put("at/current/version.txt", []byte("7"))
	w.mirror.Put("at/current/7/vmlinuz", initrd)
	w.mirror.Put("at/current/7/initrd", initrd)
	w.mirror.Put("at/7/7/vmlinuz", kernel)
	w.mirror.Put("at/7/7/initrd", initrd)
	m, err := w.pull("lab:mine:current", func(r *Request) { r.Mirror, r.Unsigned = w.mirror.URL+"/at/{version}", true })
	require.NoError(t, err)
	require.Equal(t, w.mirror.URL+"/at/7", m.Source)
	require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))
}

// TestADamagedFileOfAnotherRelease: what two releases share has rotted in the
// first, and comes anew with the second.
func TestADamagedFileOfAnotherRelease(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	w.mirror.Flatcar(w.maker, "1.0", kernel, initrd, made.Add(day))
	m, err := w.pull("flatcar:stable:1.0")
	require.NoError(t, err)
	damaged := bytes.Clone(initrd)
	damaged[7] ^= 1
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(w.Depot.Partial(m.Ref, "")), "../blobs", m.Initrds[0].SHA256), damaged, 0o600))
	w.mirror.Flatcar(w.maker, "2.0", kernel, initrd, made.Add(day))
	m, err = w.pull("flatcar:stable:2.0")
	require.NoError(t, err)
	require.Equal(t, []string{string(kernel), string(initrd)}, w.served(m))
}

func TestPullGoesOnWhereItEnded(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	w.mirror.Flatcar(w.maker, "1.0", kernel, large, made.Add(day))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.Pull(ctx, Request{Ref: "flatcar:stable:1.0", Mirror: w.mirror.URL}, func(p Progress) {
		if strings.HasSuffix(p.File, "cpio.gz") && p.Done > 1<<20 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	w.nothing()
	m, err := w.pull("flatcar:stable:1.0")
	require.NoError(t, err)
	require.Equal(t, []string{string(kernel), string(large)}, w.served(m))
	var ranges []string
	for _, r := range w.mirror.Requests() {
		if strings.Contains(r, "bytes=") {
			ranges = append(ranges, r)
		}
	}
	require.NotEmpty(t, ranges)
}

// TestFullDisk fills a real file system: nothing is to be seen of the release,
// what was taken is given back, and with room the pull succeeds.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, mirror.FlatcarSystem)
	large := bytes.Repeat([]byte("initrd"), 1<<20)
	w.mirror.Flatcar(w.maker, "1.0", kernel, large, made.Add(day))
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	d, err := depot.Open(depot.Config{Dir: dir, InUse: func() []string { return nil }, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	require.NoError(t, err)
	require.NoError(t, d.Prepare())
	w.Depot = d
	// The server does not say how much is to come, so that only writing tells.
	chunked := func(rw http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "cpio.gz") {
			return false
		}
		_, _ = rw.Write(large[:1<<20])
		_ = http.NewResponseController(rw).Flush()
		_, _ = rw.Write(large[1<<20:])
		return true
	}
	for _, before := range []func(http.ResponseWriter, *http.Request) bool{chunked, nil} {
		w.mirror.Before(before)
		_, err = w.pull("flatcar:stable:1.0")
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Equal(t, before != nil, strings.Contains(err.Error(), "write "), "%v", err)
		w.nothing()
		parts, err := filepath.Glob(filepath.Join(dir, "partial", "*"))
		require.NoError(t, err)
		for _, p := range parts { // the kernel, which is whole
			st, err := os.Stat(p)
			require.NoError(t, err)
			require.LessOrEqual(t, st.Size(), int64(len(kernel)))
		}
	}
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"))
	m, err := w.pull("flatcar:stable:1.0")
	require.NoError(t, err, "without a restart")
	require.Len(t, w.served(m), 2)
}
