package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/integration/lab"
)

// TestT14_NothingWithAKeyIsServedUnlessExposed walks everything that a set has
// and could have, over TFTP and plain HTTP.
func TestT14_NothingWithAKeyIsServedUnlessExposed(t *testing.T) {
	d := newDaemon(t, "")
	d.edit("bases: [ipxe]", fmt.Sprintf("bases: [%q]", lab.Need(t).IPXEDir())) // all formats
	d.start()
	files := d.create(`{"name":"rack1"}`).Files
	require.NotEmpty(t, files)
	exposed := d.create(`{"name":"open","exposure":["tftp","http"]}`).Files
	key := d.key("rack1-1")
	names := []string{"rack1-1/client.pem", "rack1/client.pem", "token.secret", "autoexec.ipxe", "rack1/autoexec.ipxe", "sets/rack1-1/client.pem", "../state/sets/rack1-1/client.pem"}
	for _, f := range files {
		names = append(names, f.Name, filepath.Base(f.Name))
		data, err := d.tftp(f.Name)
		require.ErrorContains(t, err, "nestctl artifact update rack1 --serve tftp", "the machine's console names the command")
		require.Empty(t, data)
		status, body := d.get("http://" + d.ports.http + "/" + f.Name)
		require.Equal(t, http.StatusForbidden, status, f.Name)
		require.Contains(t, body, "nestctl artifact update rack1 --serve http\n")
		status, body = d.ask(d.client(""), http.MethodGet, "https://boot.test/"+f.Name)
		require.Equal(t, http.StatusForbidden, status, f.Name)
		require.Contains(t, body, "nestctl artifact show rack1\n")
	}
	for _, name := range names {
		data, _ := d.tftp(name) // most are not there
		_, plain := d.get("http://" + d.ports.http + "/" + name)
		_, secure := d.ask(d.client(""), http.MethodGet, "https://boot.test/"+name)
		require.False(t, holdsKey(data, key) || holdsKey([]byte(plain), key) || holdsKey([]byte(secure), key), name)
	}
	d.waitLog("stage=key-exposure")
	for _, f := range exposed { // what is exposed is served: the walk finds a key where there is one
		status, body := d.get("http://" + d.ports.http + "/" + f.Name)
		require.Equal(t, http.StatusOK, status, f.Name)
		require.Equal(t, f.HoldsKey, holdsKey([]byte(body), d.key("open-2")), f.Name)
	}
	script, err := d.tftp("open.ipxe")
	require.NoError(t, err)
	require.True(t, holdsKey(script, d.key("open-2")))
}

// key is the private key in a set's folder, as iPXE wants it.
func (d *running) key(set string) []byte {
	d.t.Helper()
	path := filepath.Join(d.dir, "state/sets", set, "client.pem")
	pair, err := tls.LoadX509KeyPair(path, path)
	require.NoError(d.t, err)
	return x509.MarshalPKCS1PrivateKey(pair.PrivateKey.(*rsa.PrivateKey))
}

// TestT19_TokensAreNotPrinted looks for the tokens of download addresses in all
// that an operator can read.
func TestT19_TokensAreNotPrinted(t *testing.T) {
	d := newDaemon(t, "log: {level: debug}\n")
	d.start()
	set := d.create(`{"name":"rack1"}`)
	url := *set.ISO
	c := d.client("")
	at := strings.Replace(url, "boot.test:"+portOf(t, d.ports.https), "boot.test", 1)
	status, _ := d.ask(c, http.MethodGet, at)
	require.Equal(t, http.StatusOK, status)
	_, err := d.tftp(url[strings.Index(url, "artifacts/"):])
	require.ErrorContains(t, err, "file not found", "DHCP hands out a download address")
	d.admin(http.MethodPut, "/ipxe_boot_artifacts/1", `{"exposure":[]}`, http.StatusOK, nil)
	status, _ = d.ask(c, http.MethodGet, at)
	require.Equal(t, http.StatusForbidden, status, "not exposed over HTTPS either")
	d.admin(http.MethodDelete, "/ipxe_boot_artifacts/1", "", http.StatusOK, nil)
	status, _ = d.ask(c, http.MethodGet, at)
	require.Equal(t, http.StatusNotFound, status, "the address dies with the set")
	d.waitLog("no set has the token of this address")

	token := regexp.MustCompile(`/artifacts/([A-Za-z0-9_-]{43})/rack1.iso$`).FindStringSubmatch(url)
	require.Len(t, token, 2)
	var events struct{ Events []json.RawMessage }
	d.admin(http.MethodGet, "/events", "", http.StatusOK, &events)
	require.NotEmpty(t, events.Events)
	_, metrics := d.get("http://" + d.ports.metrics + "/metrics")
	d.stop()
	for name, text := range map[string]string{"log": d.log.String(), "events": fmt.Sprintf("%s", events.Events), "metrics": metrics} {
		require.NotContains(t, text, token[1], name)
	}
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}

// TestT12_OneOfTwoSetsIsDeleted has machines of both ask on connections that
// are open already.
func TestT12_OneOfTwoSetsIsDeleted(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	d.create(`{"name":"rack1","exposure":["tftp"]}`)
	d.create(`{"name":"rack2","exposure":["tftp"],"machines":["` + machineUUID("1") + `"]}`)
	one, two := d.client("rack1-1"), d.client("rack2-2")
	for _, c := range []*http.Client{one, two} {
		status, body := d.ask(c, http.MethodGet, bootURL("1"))
		require.Equal(t, http.StatusOK, status, body)
	}
	start := time.Now()
	d.admin(http.MethodDelete, "/ipxe_boot_artifacts/1", "", http.StatusOK, nil)
	status, body := d.ask(one, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusForbidden, status)
	require.Equal(t, "revoked\n", body)
	_, err := d.tftp("rack1.efi")
	require.ErrorContains(t, err, "file not found")
	require.Less(t, time.Since(start), time.Second)
	status, _ = d.ask(two, http.MethodGet, bootURL("1"))
	require.Equal(t, http.StatusOK, status, "the other set's machines boot")
	status, body = d.ask(two, http.MethodGet, bootURL("2"))
	require.Equal(t, http.StatusForbidden, status)
	require.Equal(t, "machine-not-in-set\n", body)
	d.waitLog("code=machine-not-in-set")

	var list struct {
		Sets []artifactSet `json:"ipxe_boot_artifacts"`
	}
	d.admin(http.MethodGet, "/ipxe_boot_artifacts", "", http.StatusOK, &list)
	require.Len(t, list.Sets, 1)
	require.Equal(t, machineUUID("1"), list.Sets[0].UsedBy[0].Machine, "only who was let in has used it")
	require.Len(t, list.Sets[0].UsedBy, 1)
}

// TestLoadersMayProbe has names asked for that pxelinux and iPXE try on the
// chance: that they are not there is no alarm.
func TestLoadersMayProbe(t *testing.T) {
	d := newDaemon(t, "")
	d.start()
	d.create(`{"name":"rack1","exposure":["tftp"]}`)
	for _, name := range []string{"rack1/pxelinux.cfg/01-52-54-00-00-00-01", "rack1/pxelinux.cfg/0A4D0039", "autoexec.ipxe", "rack1/0000ffff.ipxe"} {
		_, err := d.tftp(name)
		require.ErrorContains(t, err, "file not found", name)
		d.waitLog("name=" + name + ` detail="no such file`)
	}
	require.NotContains(t, d.log.String(), "level=WARN msg=\"boot stage\"")
	_, err := d.tftp("rack1/snonly.efi")
	require.ErrorContains(t, err, "file not found")
	d.waitLog("code=not-found err=\"no set has this file")
}

// holdsKey finds a private key as DER, in PEM, and in hexadecimal as iPXE's
// scripts have it: in ASCII, or in UTF-16 where UEFI hands the script over.
func holdsKey(data, key []byte) bool {
	text := hex.EncodeToString(key)
	for _, form := range [][]byte{key, []byte(text), utf16(text), []byte("PRIVATE KEY"), utf16("PRIVATE KEY")} {
		if bytes.Contains(data, form) || bytes.Contains(data, bytes.ToUpper(form)) {
			return true
		}
	}
	return false
}

// utf16 is ASCII text in UTF-16, little end first.
func utf16(s string) []byte {
	var b []byte
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return b
}

// TestReloadImportsBases begins without any iPXE, as on a host where the
// package was forgotten.
func TestReloadImportsBases(t *testing.T) {
	d := newDaemon(t, "")
	d.edit("[ipxe]", "[]")
	d.start()
	d.waitLog("no artifact set can be made")
	var refused struct {
		Error string
	}
	d.admin(http.MethodPost, "/ipxe_boot_artifacts", `{"name":"rack1"}`, http.StatusUnprocessableEntity, &refused)
	require.Contains(t, refused.Error, "base: there are no iPXE binaries: install Debian's package ipxe")
	d.edit("bases: []", "bases: [ipxe]")
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	d.waitLog("boot files were imported")
	d.waitLog("configuration was reloaded")
	d.create(`{"name":"rack1"}`)
	d.edit("[ipxe]", "[gone]")
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	d.waitLog("configuration was not reloaded")
	require.Contains(t, d.log.String(), "artifacts.bases: open "+filepath.Join(d.dir, "gone"))
}
