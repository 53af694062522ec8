package depot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/images"
	"github.com/nestboot/nestboot/images/release"
	"github.com/nestboot/nestboot/images/signature"
)

// world is a depot and who uses it.
type world struct {
	*Depot
	t    *testing.T
	dir  string
	used []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "images")}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.Depot, err = Open(Config{Dir: w.dir, InUse: func() []string { return w.used }, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	require.NoError(w.t, err)
	require.NoError(w.t, w.Prepare())
}

func ref(t *testing.T, s string) release.Ref {
	t.Helper()
	r, err := release.ParseRef(s, "")
	require.NoError(t, err)
	return r
}

func fileOf(name string, data []byte) File {
	sum := sha256.Sum256(data)
	return File{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

func (w *world) part(r release.Ref, data []byte) string {
	w.t.Helper()
	path := w.Partial(r, string(data))
	require.NoError(w.t, os.WriteFile(path, data, 0o600))
	return path
}

// release is one whose files are its name.
func (w *world) release(name string) (Manifest, map[string]string) {
	w.t.Helper()
	r := ref(w.t, name)
	kernel, initrd, common := []byte("kernel "+name), []byte("initrd "+name), []byte("in every release")
	m := Manifest{
		Format: 1, Ref: r, Kernel: fileOf("vmlinuz", kernel), Initrds: []File{fileOf("initrd", initrd), fileOf("common", common)},
		Args: []string{"console=ttyS0"}, Order: release.OrderDebian, Source: "test", Pulled: time.Now().UTC().Round(0), Proof: Proof{Kind: release.None},
	}
	parts := map[string]string{}
	for i, data := range [][]byte{kernel, initrd, common} {
		parts[m.Files()[i].SHA256] = w.part(r, data)
	}
	return m, parts
}

func (w *world) publish(name string, force bool) (Manifest, error) {
	w.t.Helper()
	m, parts := w.release(name)
	return m, w.Publish(w.t.Context(), m, parts, force)
}

func (w *world) must(name string) Manifest {
	w.t.Helper()
	m, err := w.publish(name, false)
	require.NoError(w.t, err)
	return m
}

func (w *world) flip(f File) {
	w.t.Helper()
	path := w.blob(f.SHA256)
	st, err := os.Stat(path)
	require.NoError(w.t, err)
	data, err := os.ReadFile(path)
	require.NoError(w.t, err)
	data[len(data)/2] ^= 1
	require.NoError(w.t, os.WriteFile(path, data, 0o600))
	require.NoError(w.t, os.Chtimes(path, st.ModTime(), st.ModTime()), "as a disk does it")
}

func read(t *testing.T, f *images.File) (string, error) {
	t.Helper()
	r, err := f.Reader()
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(data), nil
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	m := w.must("flatcar:stable:1.0")
	got, err := w.Get(m.Ref)
	require.NoError(t, err)
	require.Equal(t, m, got)
	img, _, err := w.Image(t.Context(), "lab", m.Ref)
	require.NoError(t, err)
	defer func() { require.NoError(t, img.Close()) }()
	f, kernel, ok := img.File("vmlinuz")
	require.True(t, ok && kernel)
	text, err := read(t, f)
	require.NoError(t, err)
	require.Equal(t, "kernel flatcar:stable:1.0", text)
	_, _, ok = img.File("1-common")
	require.True(t, ok, "initrds keep their order")

	w.must("flatcar:stable:1.1")
	text, err = read(t, img.Initrds[1])
	require.NoError(t, err, "what two releases share is not replaced under its readers")
	require.Equal(t, "in every release", text)
	left, err := os.ReadDir(w.path(partialDir))
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = w.Get(ref(t, "flatcar:stable:2.0"))
	require.ErrorIs(t, err, ErrUnknown)
	require.ErrorContains(t, err, "nestctl image pull flatcar:stable:2.0")
}

func TestT28_OneFlippedBitServesNothing(t *testing.T) {
	w := newWorld(t)
	m := w.must("flatcar:stable:1.0")
	img, _, err := w.Image(t.Context(), "lab", m.Ref)
	require.NoError(t, err)
	defer func() { require.NoError(t, img.Close()) }()
	w.flip(m.Kernel)
	_, err = read(t, img.Kernel)
	require.ErrorContains(t, err, "was changed in place", "although it is open, and has its time")
	look, err := Open(w.cfg)
	require.NoError(t, err)
	_, _, err = look.Image(t.Context(), "lab", m.Ref)
	require.ErrorIs(t, err, images.ErrDamaged)
	require.FileExists(t, w.blob(m.Kernel.SHA256), "who only looks takes nothing out")
	_, err = read(t, img.Initrds[0])
	require.NoError(t, err)

	_, _, err = w.Image(t.Context(), "lab", m.Ref)
	require.ErrorIs(t, err, images.ErrDamaged)
	require.ErrorContains(t, err, "nestctl image pull flatcar:stable:1.0 --arch x86_64")
	require.NoFileExists(t, w.blob(m.Kernel.SHA256))
	require.FileExists(t, w.path(quarantineDir, m.Kernel.SHA256))
	list, err := w.List()
	require.NoError(t, err)
	require.Equal(t, []string{"vmlinuz"}, list[0].Damaged)

	w.must("flatcar:stable:1.0") // pulled again
	img2, _, err := w.Image(t.Context(), "lab", m.Ref)
	require.NoError(t, err)
	require.NoError(t, img2.Close())
}

func TestT28_ScrubFindsIt(t *testing.T) {
	w := newWorld(t)
	m, other := w.must("flatcar:stable:1.0"), w.must("flatcar:beta:9.0")
	require.NoError(t, w.Scrub(t.Context()))
	img, _, err := w.Image(t.Context(), "lab", m.Ref)
	require.NoError(t, err)
	defer func() { require.NoError(t, img.Close()) }()
	w.flip(m.Initrds[0])
	require.NoError(t, w.Scrub(t.Context()))
	_, err = read(t, img.Initrds[0])
	require.Error(t, err)
	damaged, err := w.Verify(t.Context(), m.Ref)
	require.NoError(t, err)
	require.Equal(t, []string{"initrd"}, damaged)
	damaged, err = w.Verify(t.Context(), other.Ref)
	require.NoError(t, err)
	require.Empty(t, damaged)
}

func TestScrubRunsDaily(t *testing.T) {
	w := newWorld(t)
	m := w.must("flatcar:stable:1.0")
	synctest.Test(t, func(t *testing.T) {
		w.cfg.Now = time.Now
		w.state.Scrubbed = time.Now()
		ctx, stop := t.Context(), make(chan struct{})
		go func() { defer close(stop); w.Run(ctx) }()
		w.flip(m.Kernel)
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		require.FileExists(t, w.blob(m.Kernel.SHA256))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.NoFileExists(t, w.blob(m.Kernel.SHA256))
	})
}

func TestT29_DowngradeIsRefused(t *testing.T) {
	w := newWorld(t)
	m := w.must("flatcar:stable:10.0")
	for range 2 {
		_, err := w.publish("flatcar:stable:9.0", false)
		var r *signature.Refusal
		require.ErrorAs(t, err, &r)
		require.Equal(t, signature.CodeDowngrade, r.Code)
		require.NoError(t, w.Remove(m.Ref))
		w.open() // neither removing the newer one nor a restart makes it forget
		m = w.must("flatcar:stable:10.0")
	}
	w.must("flatcar:beta:9.0") // another channel
	_, err := w.publish("flatcar:stable:9.0", true)
	require.NoError(t, err, "forced")
	w.must("flatcar:stable:9.0") // again: it is here
	w.must("flatcar:stable:11.0")
}

// TestT29_ForceLowersTheMark: a version that never was leaves no mark for ever.
func TestT29_ForceLowersTheMark(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.Remove(w.must("flatcar:stable:99999.0").Ref))
	_, err := w.publish("flatcar:stable:9.0", true)
	require.NoError(t, err)
	w.open()
	w.must("flatcar:stable:10.0")
	require.Error(t, w.CheckCurrent(ref(t, "flatcar:stable:9.0"), release.OrderDebian), "although it is here")
	require.NoError(t, w.CheckCurrent(ref(t, "flatcar:stable:10.0"), release.OrderDebian))
}

// TestT29_OlderSignature: the number is newer, the files are not.
func TestT29_OlderSignature(t *testing.T) {
	w := newWorld(t)
	signed := func(name string, day int, force bool) error {
		m, parts := w.release(name)
		m.Proof.Signed = &signature.Signed{At: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
		return w.Publish(w.t.Context(), m, parts, force)
	}
	require.NoError(t, signed("flatcar:stable:1.0", 9, false))
	require.NoError(t, signed("flatcar:stable:2.0", 10, false))
	w.open()
	for _, name := range []string{"flatcar:stable:2.0", "flatcar:stable:3.0"} {
		err := signed(name, 9, false)
		var r *signature.Refusal
		require.ErrorAs(t, err, &r, name)
		require.Equal(t, signature.CodeDowngrade, r.Code)
		require.ErrorContains(t, err, "2026-01-10")
	}
	require.NoError(t, signed("flatcar:stable:1.0", 9, false), "an older one that is here is as old as it is")
	require.NoError(t, signed("flatcar:stable:3.0", 9, true))
	require.NoError(t, signed("flatcar:stable:4.0", 9, false), "after force, its day counts")
}

func TestCollectNeverRemovesWhatIsInUse(t *testing.T) {
	w := newWorld(t)
	one, two, three := w.must("flatcar:stable:1.0"), w.must("flatcar:stable:2.0"), w.must("flatcar:stable:3.0")
	w.used = []string{one.ID()}
	stray := w.blob(fileOf("x", []byte("stray")).SHA256)
	require.NoError(t, os.WriteFile(stray, []byte("stray"), 0o600))
	young, old := w.part(one.Ref, []byte("young")), w.part(one.Ref, []byte("old"))
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-8*24*time.Hour)))

	dry, err := w.Collect(1, true)
	require.NoError(t, err)
	require.FileExists(t, stray)
	done, err := w.Collect(1, false)
	require.NoError(t, err)
	require.Equal(t, dry, done, "a dry run says what would be")
	require.Equal(t, Collected{Releases: []string{two.ID()}, Files: 4, Bytes: int64(len("straykernel flatcar:stable:2.0initrd flatcar:stable:2.0old"))}, done)
	require.FileExists(t, young)
	for _, m := range []Manifest{one, three} {
		damaged, err := w.Verify(t.Context(), m.Ref)
		require.NoError(t, err)
		require.Empty(t, damaged, m.ID())
	}
	var inUse *InUseError
	require.ErrorAs(t, w.Remove(one.Ref), &inUse)
	require.NoError(t, w.Remove(three.Ref))
	require.ErrorIs(t, w.Remove(three.Ref), ErrUnknown)

	require.NoError(t, os.WriteFile(w.manifest(one.Ref), []byte("{"), 0o600))
	_, err = w.Collect(0, false)
	require.ErrorContains(t, err, "no files are removed")
	require.FileExists(t, w.blob(one.Kernel.SHA256))
}

func TestAReleaseInUseIsNotReplaced(t *testing.T) {
	w := newWorld(t)
	w.must("flatcar:stable:1.0")
	m := w.must("flatcar:stable:1.0") // the same again
	other, more := m, m
	other.Kernel, more.Args = fileOf("vmlinuz", []byte("another")), []string{"init=/bin/sh"}
	for _, other := range []Manifest{other, more} {
		w.used = nil
		parts := map[string]string{other.Kernel.SHA256: w.part(m.Ref, []byte("another"))}
		err := w.Publish(t.Context(), other, parts, false)
		var r *signature.Refusal
		require.ErrorAs(t, err, &r)
		require.Equal(t, signature.CodeDifferent, r.Code)
		w.used = []string{m.ID()}
		var inUse *InUseError
		require.ErrorAs(t, w.Publish(t.Context(), other, parts, true), &inUse)
		got, err := w.Get(m.Ref)
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	w.used = nil
	w.cfg.Served = func() []string { return []string{m.Kernel.SHA256} }
	require.NoError(t, w.Publish(t.Context(), other, map[string]string{other.Kernel.SHA256: w.part(m.Ref, []byte("another"))}, true))
	_, err := w.Collect(0, false)
	require.NoError(t, err)
	require.FileExists(t, w.blob(m.Kernel.SHA256), "machines get it until a reload")
	require.NoFileExists(t, w.blob(m.Initrds[0].SHA256))
}

func TestPublishNeedsItsFiles(t *testing.T) {
	w := newWorld(t)
	m := w.must("flatcar:stable:1.0")
	m.Version, m.Kernel = "2.0", fileOf("vmlinuz", []byte("not here"))
	require.ErrorContains(t, w.Publish(w.t.Context(), m, nil, false), "is not here any more")
	_, err := w.Get(m.Ref)
	require.ErrorIs(t, err, ErrUnknown)
	m.Kernel.Name = "../vmlinuz"
	require.Error(t, w.Publish(w.t.Context(), m, nil, false))
}

func TestT27_ManifestNamesNothingOutside(t *testing.T) {
	w := newWorld(t)
	good := w.must("flatcar:stable:1.0")
	for name, change := range map[string]func(*Manifest){
		"file name":  func(m *Manifest) { m.Kernel.Name = "../x" },
		"dot":        func(m *Manifest) { m.Kernel.Name = ".." },
		"digest":     func(m *Manifest) { m.Kernel.SHA256 = "../../../../etc/passwd" },
		"system":     func(m *Manifest) { m.System = ".." },
		"channel":    func(m *Manifest) { m.Channel = "a/b" },
		"version":    func(m *Manifest) { m.Version = ".." },
		"current":    func(m *Manifest) { m.Version = "current" },
		"size":       func(m *Manifest) { m.Kernel.Size = -1 },
		"bomb":       func(m *Manifest) { m.Kernel.Size = 1 << 50 },
		"argument":   func(m *Manifest) { m.Args = []string{"a b"} },
		"order":      func(m *Manifest) { m.Order = "x" },
		"new format": func(m *Manifest) { m.Format = 2 },
		"initrds":    func(m *Manifest) { m.Initrds = make([]File, 17) },
	} {
		m := good
		change(&m)
		data, err := m.Encode()
		require.NoError(t, err)
		_, err = ReadManifest(data)
		require.Error(t, err, name)
	}
	data, err := good.Encode()
	require.NoError(t, err)
	for name, bad := range map[string][]byte{"trailing": append(bytes.Clone(data), data...), "unknown": []byte(`{"x":1}`), "long": make([]byte, MaxManifest+1), "empty": nil} {
		_, err := ReadManifest(bad)
		require.Error(t, err, name)
	}
}

func TestDamagedState(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, os.WriteFile(w.path(stateFile), []byte("{"), 0o600))
	_, err := Open(w.cfg)
	require.ErrorContains(t, err, "older releases can come in")
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"system":"flatcar","channel":"stable","version":"1.0","arch":"x86_64","kernel":{"name":"k","size":1,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"order":"debian"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ReadManifest(data)
		if err != nil {
			return
		}
		d := &Depot{cfg: Config{Dir: "/depot"}}
		for _, path := range []string{d.manifest(m.Ref), d.blob(m.Kernel.SHA256)} {
			rel, err := filepath.Rel("/depot", path)
			require.NoError(t, err)
			require.True(t, filepath.IsLocal(rel))
		}
		again, err := m.Encode()
		require.NoError(t, err)
		_, err = ReadManifest(again)
		if err != nil && !errors.Is(err, io.EOF) && len(again) <= MaxManifest {
			require.NoError(t, err)
		}
	})
}
