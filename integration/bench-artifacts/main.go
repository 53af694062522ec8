// Command bench-artifacts measures how long a set of boot artifacts takes:
// all formats, made of both stock versions of iPXE and written to disk. It
// prints lines in the project's format for benchmarks and appends them to
// docs/performance.md when BENCH_SAVE=1.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/ipxebuild"
)

const (
	setRounds  = 41
	rootRounds = 9
	keyRounds  = 15
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench-artifacts:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	b, err := newJob()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "bench-artifacts: %s, %d cores, iPXE %s; median of %d sets (%s), %d roots, %d keys\n",
		runtime.Version(), runtime.GOMAXPROCS(0), strings.Join(b.stock.Versions(), " and "), setRounds,
		"all formats, rendered, digested and written to "+b.dir, rootRounds, keyRounds)
	set, err := b.sets(out)
	if err != nil {
		return err
	}
	root, err := b.roots()
	if err != nil {
		return err
	}
	key, err := keys()
	if err != nil {
		return err
	}
	figure := func(name string, took time.Duration) bench.Figure {
		return bench.Figure{Name: name, Ours: bench.Milliseconds(took), Unit: "ms"}
	}
	return bench.Report(context.Background(), out,
		figure("artifact_set", set), figure("artifact_trust_root", root), figure("artifact_key", key))
}

type job struct {
	stock  *ipxebuild.Stock
	config ipxebuild.Config
	dir    string
}

func newJob() (*job, error) {
	m, err := lab.FindMaterials()
	if err != nil {
		return nil, err
	}
	var bundles []ipxebuild.Bundle
	for _, path := range m.Debs() {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		bundle, err := ipxebuild.ReadDeb(filepath.Base(path), data)
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, bundle)
	}
	b := &job{dir: os.TempDir()}
	if b.stock, err = ipxebuild.NewStock(bundles...); err != nil {
		return nil, err
	}
	b.config, err = config()
	return b, err
}

// config is a set with an RSA-2048 key, the default.
func config() (ipxebuild.Config, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return ipxebuild.Config{}, err
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return ipxebuild.Config{}, err
	}
	der, err := ipxebuild.MarshalKey(key)
	return ipxebuild.Config{
		URL: "https://ipxe.example.com", Root: sha256.Sum256([]byte("bench")), Cert: cert, Key: der, Now: time.Now(),
	}, err
}

// sets makes whole sets of either version in turn, with the trust patched
// before, and says which part of it takes longest.
func (b *job) sets(out io.Writer) (time.Duration, error) {
	versions := b.stock.Versions()
	for _, v := range versions { // patch the trust
		b.config.Name, b.config.Base = "warm", v
		if _, err := b.stock.Set(b.config); err != nil {
			return 0, err
		}
	}
	parts := map[string][]time.Duration{}
	var whole []time.Duration
	for i := range setRounds {
		b.config.Name, b.config.Base = fmt.Sprintf("rack%d", i), versions[i%len(versions)]
		d, err := b.once()
		if err != nil {
			return 0, err
		}
		whole = append(whole, d)
		if err := b.parts(parts); err != nil {
			return 0, err
		}
	}
	slowest, longest := "", time.Duration(0)
	for name, times := range parts {
		if m := bench.Median(times); m > longest {
			slowest, longest = name, m
		}
	}
	slices.Sort(whole)
	fmt.Fprintf(out, "artifact_set: best %.1f, worst %.1f ms; slowest part, alone on one core: %s, %.1f ms\n",
		bench.Milliseconds(whole[0]), bench.Milliseconds(whole[len(whole)-1]), slowest, bench.Milliseconds(longest))
	return bench.Median(whole), nil
}

// once makes one set and removes it; removing does not count.
func (b *job) once() (time.Duration, error) {
	dir, err := os.MkdirTemp(b.dir, "nestboot-bench-")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	set, err := b.stock.Set(b.config)
	if err == nil {
		err = set.WriteTo(filepath.Join(dir, "set"))
	}
	took := time.Since(start)
	if e := os.RemoveAll(dir); err == nil {
		err = e
	}
	return took, err
}

// parts times what WriteTo does side by side, one after the other.
func (b *job) parts(into map[string][]time.Duration) error {
	lap := time.Now()
	done := func(name string) {
		into[name] = append(into[name], time.Since(lap))
		lap = time.Now()
	}
	set, err := b.stock.Set(b.config)
	if err != nil {
		return err
	}
	done("checks and scripts")
	dir, err := os.MkdirTemp(b.dir, "nestboot-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the next round makes its own
	var digests, writes time.Duration
	for _, f := range set.Files() {
		if f.Format == ipxebuild.FormatManifest {
			continue
		}
		lap = time.Now()
		data, err := set.Render(f.Name)
		if err != nil {
			return err
		}
		done("making " + string(f.Format))
		sha256.Sum256(data)
		digests += time.Since(lap)
		lap = time.Now()
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(f.Name, "/", "_")), data, 0o600); err != nil {
			return err
		}
		writes += time.Since(lap)
	}
	into["digests"] = append(into["digests"], digests)
	into["writing"] = append(into["writing"], writes)
	return nil
}

// roots makes the first set of roots that are new.
func (b *job) roots() (time.Duration, error) {
	var times []time.Duration
	versions := b.stock.Versions()
	for i := range rootRounds {
		b.config.Name, b.config.Base = "root", versions[i%len(versions)]
		b.config.Root = sha256.Sum256([]byte{byte(i)})
		start := time.Now()
		if _, err := b.stock.Set(b.config); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	return bench.Median(times), nil
}

// keys makes RSA-2048 keys, the default.
func keys() (time.Duration, error) {
	var times []time.Duration
	for range keyRounds {
		start := time.Now()
		if _, err := rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	return bench.Median(times), nil
}
