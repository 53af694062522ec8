package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/nestboot/nestboot/integration/bench"
	"github.com/nestboot/nestboot/integration/customer"
	"github.com/nestboot/nestboot/integration/lab"
	"github.com/nestboot/nestboot/integration/rig"
)

// serverCore is where the servers run, one at work at a time; the clients run on
// clientCore.
const (
	serverCore = "0"
	clientCore = "1"
)

// host is the name that serves images to who has a URL with a token.
const host = "boot." + rig.Domain

// nginxConfig is how nginx serves large files best without modules of others:
// sendfile where there is no TLS, whole packets, one process for its one core,
// and the access log that Debian's own configuration writes.
const nginxConfig = `user root;
master_process off;
daemon off;
pid %[1]s/nginx.pid;
events { worker_connections 8192; }
http {
  access_log %[1]s/access.log;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  sendfile on;
  tcp_nopush on;
  server {
    listen %[2]s backlog=4096;
    listen %[3]s ssl backlog=4096;
    server_name %[4]s;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
    ssl_certificate %[5]s;
    ssl_certificate_key %[6]s;
    root %[1]s;
  }
}
`

// server is one of those that are compared.
type server struct {
	name       string
	plain, tls target
	pid        int
	meter      *bench.Meter
}

// target is where a file is and how to ask for it.
type target struct {
	addr string // host and port
	tls  bool
	path string
}

// start starts both servers with the same file.
func (b *benchmark) start(ctx context.Context) error {
	chain, key := filepath.Join(b.dir, "server.pem"), filepath.Join(b.dir, "server.key")
	if err := makeCertificate(chain, key); err != nil {
		return err
	}
	if err := b.startBootd(ctx, chain, key); err != nil {
		return err
	}
	return b.startNginx(ctx, chain, key)
}

func makeCertificate(chain, key string) error {
	root, err := customer.NewRoot(customer.P256, "Bench Root")
	if err != nil {
		return err
	}
	pair, err := root.Issue(customer.Leaf{Name: host, Usage: x509.ExtKeyUsageServerAuth, Hosts: []string{host, "ipxe." + rig.Domain}})
	if err != nil {
		return err
	}
	if err := customer.WriteCerts(chain, pair.Chain...); err != nil {
		return err
	}
	return customer.WriteKey(key, pair.Key)
}

func (b *benchmark) startBootd(ctx context.Context, chain, key string) (err error) {
	b.bootd, err = rig.Loopback{
		Dir: b.dir, Bootd: b.o.bootd, Nestctl: b.o.nestctl, Core: serverCore, Image: b.o.size,
		Config: fmt.Sprintf("certificates: [{certificate: %s, key: %s}]", chain, key),
	}.Start(ctx)
	if err != nil {
		return err
	}
	out, err := b.bootd.Nestctl(ctx, "url", "create", "chain", "bench", "--http", "-o", "json")
	if err != nil {
		return err
	}
	var answer struct {
		URL struct {
			HTTPS string `json:"https_url"`
		} `json:"ipxe_chain_url"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return fmt.Errorf("read the chain URL: %w", err)
	}
	_, rest, _ := strings.Cut(answer.URL.HTTPS, "://")
	_, path, _ := strings.Cut(rest, "/")
	path = "/" + path + "/ipxe/"
	s := &server{name: "bootd", pid: b.bootd.Proc.Pid()}
	s.plain = target{addr: b.bootd.HTTP, path: path + "images/lab/kernel"}
	s.tls = target{addr: b.bootd.HTTPS, path: path + "images/lab/kernel", tls: true}
	b.chain = path
	b.ours = s
	s.meter, err = bench.NewMeter(s.pid)
	return err
}

func (b *benchmark) startNginx(ctx context.Context, chain, key string) error {
	plain, err := rig.FreeAddr()
	if err != nil {
		return err
	}
	secure, err := rig.FreeAddr()
	if err != nil {
		return err
	}
	config := filepath.Join(b.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, b.dir, plain, secure, host, chain, key)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	cmd := b.materials.Command(ctx, "usr/sbin/nginx", "-e", filepath.Join(b.dir, "error.log"), "-p", b.dir, "-c", config)
	if b.nginx, err = lab.Launch(rig.OnCore(serverCore, cmd), "nginx", filepath.Join(b.dir, "nginx.log")); err != nil {
		return err
	}
	b.theirs = &server{
		name: "nginx", pid: b.nginx.Pid(),
		plain: target{addr: plain, path: "/kernel"}, tls: target{addr: secure, path: "/kernel", tls: true},
	}
	if b.theirs.meter, err = bench.NewMeter(b.theirs.pid); err != nil {
		return err
	}
	return answers(ctx, secure)
}

func (b *benchmark) close() {
	if b.nginx != nil {
		b.nginx.Kill()
	}
	b.bootd.Close()
	for _, s := range []*server{b.ours, b.theirs} {
		if s != nil && s.meter != nil {
			s.meter.Close()
		}
	}
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
