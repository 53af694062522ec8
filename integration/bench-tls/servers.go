package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// serverCore is where the servers run, one at work at a time; the clients run on
// clientCore.
const (
	serverCore = "0"
	clientCore = "1"
)

// host is the name that requests client certificates.
const host = "ipxe." + rig.Domain

// nginxConfig asks for the same as ours: one process, TLS 1.2 with ECDHE and
// AES-GCM, no session that could be resumed, a client certificate that must be
// good, and the access log that Debian's own configuration writes.
const nginxConfig = `user root;
master_process off;
daemon off;
pid %[1]s/nginx.pid;
events { worker_connections 4096; }
http {
  access_log %[1]s/access.log;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s ssl backlog=4096;
    server_name %[3]s;
    ssl_protocols TLSv1.2;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
    ssl_certificate %[4]s;
    ssl_certificate_key %[5]s;
    ssl_client_certificate %[6]s;
    ssl_verify_client on;
    ssl_session_tickets off;
    ssl_session_cache off;
    location / { return 200 "ok\n"; }
  }
}
`

// withoutIFMA makes OpenSSL compute as on a processor without AVX-512 IFMA, by
// which its RSA is more than twice as fast and which Go does not use (OpenSSL's
// OPENSSL_ia32cap(3): bit 21 of the second vector).
const withoutIFMA = "OPENSSL_ia32cap=:~0x200000"

// startNginx starts the peer and returns where it answers.
func startNginx(ctx context.Context, m lab.Materials, dir string, f files, env ...string) (*lab.Proc, string, error) {
	addr, err := rig.FreeAddr()
	if err != nil {
		return nil, "", err
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, dir, addr, host, f.Chain, f.Key, f.CA)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	cmd := m.Command(ctx, "usr/sbin/nginx", "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", config)
	cmd.Env = append(os.Environ(), env...)
	p, err := lab.Launch(rig.OnCore(serverCore, cmd), "nginx", filepath.Join(dir, "nginx.log"))
	if err != nil {
		return nil, "", err
	}
	return p, addr, answers(ctx, addr)
}

// answers waits until somebody accepts connections.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing answers at %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// nginxVersion is the peer's name in figures.
func nginxVersion(ctx context.Context, m lab.Materials) (name, whole string, err error) {
	out, err := m.Command(ctx, "usr/sbin/nginx", "-V").CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("nginx -V: %w: %s", err, out)
	}
	found := regexp.MustCompile(`nginx version: nginx/(\S+)[\s\S]*built with (OpenSSL \S+)`).FindSubmatch(out)
	if found == nil {
		return "", "", fmt.Errorf("nginx -V says nothing of its version: %s", out)
	}
	return "nginx-" + string(found[1]), fmt.Sprintf("nginx %s (%s)", found[1], found[2]), nil
}
