package httpboot

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/boot"
)

func TestUnidentifiedCallers(t *testing.T) {
	w := start(t)
	expired := 2 * 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		client client
		skew   time.Duration
		status int
		code   string
	}{
		"no certificate":            {client{}, 0, http.StatusUnauthorized, "no-certificate"},
		"certificate of another CA": {client{cert: selfSigned(t)}, 0, http.StatusForbidden, "unknown-ca"},
		"expired certificate":       {client{cert: w.setCert()}, expired, http.StatusForbidden, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tt.client
			cl := w.client(c)
			cl.Transport.(*http.Transport).TLSClientConfig.Time = time.Now // the server's certificate is good today
			w.skew.Store(int64(tt.skew))
			defer w.skew.Store(0)
			for _, path := range []string{testQuery, "/ipxe/images/lab/vmlinuz", "/ipxe/initrd/b00t"} {
				a := w.do(cl, http.MethodGet, "https://ipxe.test"+path)
				require.Equal(t, tt.status, a.status, path)
				require.Equal(t, tt.code+"\n", a.body, "the client gets the code and nothing else")
			}
			require.NotEmpty(t, w.event(boot.StageScript, tt.code).Error, "the operator is told why")
		})
	}
}

func TestIdentifiedButRefused(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})

	w.inventory.Machines = map[string]boot.Machine{testUUID: {UUID: testUUID, Name: "n", Policy: boot.PolicyRefuse}}
	a := w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	require.Equal(t, http.StatusOK, a.status, "a machine of ours is told on its console")
	require.Contains(t, a.body, "its policy is refuse (disabled)")
	require.Contains(t, a.body, "\nsleep 60")
	require.NotContains(t, a.body, "kernel")
	w.event(boot.StageScript, boot.CodeDisabled)

	a = w.do(c, http.MethodGet, "https://ipxe.test/ipxe/boot?uuid=x")
	require.Equal(t, http.StatusOK, a.status)
	require.Contains(t, a.body, "is not a UUID")
	w.event(boot.StageScript, "bad-request")
}

func TestNothingHalfDoneIsServed(t *testing.T) {
	w := start(t)
	w.baseError = errors.New("no Butane file")
	a := w.do(w.client(client{cert: w.setCert()}), http.MethodGet, "https://ipxe.test"+testQuery)
	require.Equal(t, http.StatusOK, a.status)
	require.Contains(t, a.body, "(not-ready)")
	require.NotContains(t, a.body, "kernel")
	require.Contains(t, w.event(boot.StageScript, boot.CodeNotReady).Error, "no Butane file")
}

// TestOneBoot goes through a whole boot as iPXE, Ignition and the machine do.
func TestOneBoot(t *testing.T) {
	w := start(t)
	ipxe := w.client(client{cert: w.setCert()})
	a := w.do(ipxe, http.MethodGet, "https://ipxe.test"+testQuery)
	require.Equal(t, http.StatusOK, a.status)
	require.Contains(t, a.body, "kernel --name vmlinuz https://ipxe.test/ipxe/images/lab/vmlinuz")
	w.event(boot.StageScript, "boot: boots image lab")

	a = w.do(ipxe, http.MethodGet, "https://ipxe.test/ipxe/images/lab/vmlinuz")
	require.Equal(t, 4<<20, len(a.body))
	require.EqualValues(t, 4<<20, w.event(boot.StageKernel, "").Bytes)

	grant := w.grant(ipxe)
	machine := w.client(client{})
	a = w.do(machine, http.MethodGet, "https://boot.test/ipxe/ignition", "Authorization", grant)
	require.Equal(t, http.StatusOK, a.status)
	require.Contains(t, a.body, "node1")
	require.Equal(t, testUUID, w.event(boot.StageIgnition, "").Machine)
	done := "Bearer " + between(t, a.body, "Authorization:%20Bearer%20", "%0A")
	require.Equal(t, http.StatusUnauthorized, w.do(machine, http.MethodGet, "https://boot.test/ipxe/ignition", "Authorization", done).status,
		"the done token can do nothing else")
	require.Equal(t, http.StatusUnauthorized, w.do(machine, http.MethodPost, "https://boot.test/ipxe/done", "Authorization", grant).status,
		"nor can the grant report")

	a = w.do(machine, http.MethodPost, "https://boot.test/ipxe/done", "Authorization", done)
	require.Equal(t, answer{http.StatusOK, "ok\n", a.header}, a)
	require.Equal(t, []string{testUUID}, w.finished)
	a = w.do(machine, http.MethodPost, "https://boot.test/ipxe/done", "Authorization", done)
	require.Equal(t, http.StatusOK, a.status, "a lost answer may be asked for again")
	w.event(boot.StageDone, "reported again")
	require.Equal(t, []string{testUUID, testUUID}, w.finished, "the first report may have been cut short")

	a = w.do(machine, http.MethodGet, "https://boot.test/ipxe/ignition", "Authorization", grant)
	require.Equal(t, answer{http.StatusGone, "grant-burned\n", a.header}, a)
	w.event(boot.StageIgnition, "grant-burned")
	w.noSecrets(grant, done)
}

// grant downloads the machine's initrd and takes the grant out, as the kernel
// and Ignition do.
func (w *world) grant(ipxe *http.Client) string {
	w.t.Helper()
	a := w.do(ipxe, http.MethodGet, "https://ipxe.test/ipxe/initrd/b00t")
	require.Equal(w.t, http.StatusOK, a.status)
	require.Equal(w.t, "no-store", a.header.Get("Cache-Control"))
	replace := pointer(w.t, a.body)
	require.Equal(w.t, "https://boot.test/ipxe/ignition", replace.Source)
	require.Equal(w.t, "Authorization", replace.HTTPHeaders[0].Name)
	return replace.HTTPHeaders[0].Value
}

// replacement is where a machine's initrd says that its config is.
type replacement struct {
	Source      string
	HTTPHeaders []struct{ Name, Value string }
}

func pointer(t *testing.T, initrd string) replacement {
	t.Helper()
	r := cpio.NewReader(strings.NewReader(initrd))
	for {
		h, err := r.Next()
		require.NoError(t, err, "config.ign must be in the initrd")
		if h.Name != "usr/share/oem/config.ign" {
			continue
		}
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		var config struct {
			Ignition struct{ Config struct{ Replace replacement } }
		}
		require.NoError(t, json.Unmarshal(data, &config))
		return config.Ignition.Config.Replace
	}
}

func TestT21_GrantIsBoundToTheAddressOfItsFirstFetch(t *testing.T) {
	w := start(t)
	ipxe := w.client(client{cert: w.setCert()})
	w.do(ipxe, http.MethodGet, "https://ipxe.test"+testQuery)
	grant := w.grant(ipxe)
	const url = "https://boot.test/ipxe/ignition"
	require.Equal(t, http.StatusOK, w.do(w.client(client{}), http.MethodGet, url, "Authorization", grant).status)
	a := w.do(w.client(client{from: "127.0.0.2"}), http.MethodGet, url, "Authorization", grant)
	require.Equal(t, answer{http.StatusUnauthorized, "grant-other-address\n", a.header}, a)
	require.Equal(t, "127.0.0.2", w.event(boot.StageIgnition, "grant-other-address").Addr.String())
	require.Equal(t, http.StatusOK, w.do(w.client(client{}), http.MethodGet, url, "Authorization", grant).status, "the machine itself may retry")
}

func TestBadTokens(t *testing.T) {
	w := start(t)
	c := w.client(client{})
	for _, auth := range []string{"", "Basic x", "Bearer", "Bearer x", "Bearer b00t.short", "Bearer b00t." + strings.Repeat("A", 43), "bearer nob00t." + strings.Repeat("A", 43)} {
		for _, r := range []struct{ method, path string }{{http.MethodGet, "/ipxe/ignition"}, {http.MethodPost, "/ipxe/done"}} {
			a := w.do(c, r.method, "https://boot.test"+r.path, "Authorization", auth)
			require.Equal(t, http.StatusUnauthorized, a.status, "%s with %q", r.path, auth)
		}
	}
}

func TestMachineInitrdNeedsItsOwnBoot(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	a := w.do(c, http.MethodGet, "https://ipxe.test/ipxe/initrd/b00t")
	require.Equal(t, http.StatusUnauthorized, a.status, "no script was given for this boot")
	w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	other, err := w.authority.IssueMachine(t.Context(), "rack2", time.Time{})
	require.NoError(t, err)
	set2 := w.setCert()
	set2.Certificate, set2.PrivateKey = [][]byte{other.Certificate.Raw}, other.Key
	a = w.do(w.client(client{cert: set2}), http.MethodGet, "https://ipxe.test/ipxe/initrd/b00t")
	require.Equal(t, http.StatusForbidden, a.status, "another set's certificate must not get this machine's grant")
	require.Equal(t, "grant-other-credential\n", a.body)
}

// noSecrets looks for secrets in all that an operator can read (T19).
func (w *world) noSecrets(auth ...string) {
	w.t.Helper()
	w.mu.Lock()
	events, err := json.Marshal(w.events)
	w.mu.Unlock()
	require.NoError(w.t, err)
	w.logMu.Lock()
	defer w.logMu.Unlock()
	for _, a := range auth {
		secret := a[strings.LastIndex(a, ".")+1:]
		require.Len(w.t, secret, 43)
		require.NotContains(w.t, w.log.String(), secret)
		require.False(w.t, bytes.Contains(events, []byte(secret)))
	}
}

func TestMachineWhoseFirstAnswerWasLostIsNotTurnedAway(t *testing.T) {
	w := start(t)
	c := w.client(client{cert: w.setCert()})
	for range 3 { // the boot's id stays the same until it has been answered
		a := w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
		require.Contains(t, a.body, "\nkernel ", "it asks again and boots")
	}
	require.NotEmpty(t, w.grant(c))
	a := w.do(c, http.MethodGet, "https://ipxe.test"+testQuery)
	require.Contains(t, a.body, "(not-ready)", "an id for which a grant was minted is used up")
}

func TestMadeUpBootIDsAreNotRecorded(t *testing.T) {
	w := start(t)
	id := strings.Repeat("x", 8000)
	require.Equal(t, http.StatusUnauthorized, w.do(w.client(client{}), http.MethodGet, "https://ipxe.test/ipxe/initrd/"+id).status)
	require.Empty(t, w.event(boot.StageConfig, "no-certificate").Boot)
}
