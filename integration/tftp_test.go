package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/tftp"
)

// TestTFTPClients downloads with every client that Debian has, with all
// combinations of the options that it can ask for.
func TestTFTPClients(t *testing.T) {
	if testing.Short() {
		t.Skip("runs other people's programs")
	}
	m, err := lab.FindMaterials()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.NoError(t, lab.Loopback(t.Context()))
	for _, single := range []bool{false, true} {
		file := make([]byte, 300_000)
		_, _ = rand.NewChaCha8([32]byte{5}).Read(file)
		port := strconv.Itoa(serveFiles(t, file, single))
		for name, client := range tftpClients(m, port) {
			t.Run(fmt.Sprintf("single port %v, %s", single, name), func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				said, err := client(ctx, out).CombinedOutput()
				require.NoError(t, err, "%s", said)
				got, err := os.ReadFile(out)
				require.NoError(t, err, "%s", said)
				require.Equal(t, sha256.Sum256(file), sha256.Sum256(got), "%s", said)
			})
		}
	}
}

func serveFiles(t *testing.T, file []byte, single bool) int {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	s := &tftp.Server{SinglePort: single, Open: func(context.Context, string, netip.AddrPort) (*io.SectionReader, error) {
		return io.NewSectionReader(bytes.NewReader(file), 0, int64(len(file))), nil
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// tftpClients are commands that download to a file.
func tftpClients(m lab.Materials, port string) map[string]func(ctx context.Context, out string) *exec.Cmd {
	clients := map[string]func(context.Context, string) *exec.Cmd{}
	for _, block := range []string{"", "512", "1000", "1468", "65464"} {
		clients["curl "+block] = func(ctx context.Context, out string) *exec.Cmd {
			args := []string{"-sS", "-o", out, "--tftp-blksize", block, "tftp://127.0.0.1:" + port + "/file"}
			if block == "" {
				args[3] = "--tftp-no-options"
				args = append(args[:4], args[5:]...)
			}
			return m.Command(ctx, "usr/bin/curl", args...)
		}
		clients["busybox "+block] = func(ctx context.Context, out string) *exec.Cmd {
			args := []string{"tftp", "-g", "-r", "file", "-l", out}
			if block != "" {
				args = append(args, "-b", block)
			}
			return exec.CommandContext(ctx, m.Path("bin/busybox"), append(args, "127.0.0.1", port)...)
		}
		for _, window := range []string{"", "4", "64"} {
			clients["tftp-hpa 7 "+block+" "+window] = func(ctx context.Context, out string) *exec.Cmd {
				args := []string{"--mode", "octet"}
				if block != "" {
					args = append(args, "--blocksize", block)
				}
				if window != "" {
					args = append(args, "--windowsize", window)
				}
				return m.From("forky").Command(ctx, "usr/bin/tftp", append(args, "127.0.0.1", port, "-c", "get", "file", out)...)
			}
			clients["atftp "+block+" "+window] = func(ctx context.Context, out string) *exec.Cmd {
				args := []string{"--get", "--remote-file", "file", "--local-file", out}
				if block != "" {
					args = append(args, "--option", "blksize "+block, "--option", "tsize 0", "--option", "timeout 2")
				}
				if window != "" {
					args = append(args, "--option", "windowsize "+window)
				}
				return m.Command(ctx, "usr/bin/atftp", append(args, "127.0.0.1", port)...)
			}
		}
	}
	return clients
}
