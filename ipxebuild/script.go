package ipxebuild

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// scriptConfig is what the script of a set is made of.
type scriptConfig struct {
	set       string // its name, shown on the console
	url       string // https://host[:port] of the name that asks for client certificates
	cert, key []byte // DER of the client certificate and its key (PKCS #1 or SEC 1); nil: keyless
	options   Options
	// foreign makes the script that is handed to the user class iPXE: it may
	// run in an iPXE that lacks our trust.
	foreign bool
	marked  string // what the set's undionly.kpxe says is its version, for foreign; empty: there is none
}

// The pause between two tries: firstPause, then longer by it each time until
// lastPause, so that a rack without a server neither spins nor floods.
const (
	firstPause = 5 * time.Second
	lastPause  = 60 * time.Second
)

// Settings of ours in iPXE.
const (
	settingPause = "nestboot-pause"
	settingTries = "nestboot-tries"
	settingNIC   = "nestboot-nic"
	settingTFTP  = "nestboot-tftp"
)

// render makes the script that makes a stock iPXE binary one of the set: it
// sets the client certificate, brings up the network over whichever interface
// answers, and asks /ipxe/boot what to do, for ever, with growing pauses. It
// holds the private key, if the set has one.
//
// Settings that a DHCP server could plant are covered or encoded first (T16):
// crosscert, so that a refused chain is not looked up elsewhere, and the only
// free text, the serial number, is sent URI-encoded. uuid and serial come from
// SMBIOS alone (src/interface/smbios/smbios_settings.c, 1.21.1).
func (c scriptConfig) render() ([]byte, error) {
	host, err := hostOf(c.url)
	if err != nil {
		return nil, fmt.Errorf("script of set %s: %w", c.set, err)
	}
	if err := c.options.Validate(); err != nil {
		return nil, fmt.Errorf("script of set %s: %w", c.set, err)
	}
	s := &boot.Script{}
	c.identity(s)
	c.options.once(s)
	s.Label("start")
	s.Do(setPause(firstPause))
	c.options.resetTries(s)
	s.Label("retry")
	s.Do(boot.Echo("nestboot: set " + c.set + ", looking for " + host))
	c.options.network(s)
	s.DoOr(boot.Cmd("chain", boot.Lit("--autofree"), question(c.url)), boot.Goto("failed"))
	s.When(isLocal(), boot.Goto("local"))
	s.Try(boot.Sleep(time.Second)) // whatever the server's script did, this loop never spins
	s.Do(boot.Goto("start"))
	s.Label("no-network")
	s.Do(c.options.noNetwork())
	s.Do(boot.Goto("pause"))
	s.Label("failed")
	c.failed(s, host)
	s.Label("pause")
	c.options.countTry(s)
	s.Do(boot.Echo("nestboot: trying again in", boot.Var(settingPause, "int32"), boot.Lit("seconds,"), boot.Lit("Ctrl-C"), boot.Lit("to"), boot.Lit("hurry")))
	s.Try(boot.Cmd("sleep", boot.Var(settingPause, "int32")))
	lengthen(s)
	s.Do(boot.Goto("retry"))
	s.Label("local")
	local(s)
	return s.Bytes()
}

// identity says what the script is and sets the certificate.
func (c scriptConfig) identity(s *boot.Script) {
	holds := "This file holds a private key."
	if c.key == nil {
		holds = "This file holds no private key."
	}
	s.Comment("nestboot, artifact set " + c.set + ". " + holds)
	// Without a value the command would delete the setting, and DHCP's (option
	// 175.93) would hold. One NUL is a text without a character, which is looked
	// up nowhere and stands above what DHCP says, now and later (1.21.1, 2.0.0).
	s.Do(boot.Set("crosscert:hexraw", boot.Lit("00")))
	s.Do(boot.Set(boot.SettingLocal))
	if c.key != nil {
		s.Do(boot.Set("cert:hexraw", boot.Lit(hex.EncodeToString(c.cert))))
		s.Do(boot.Set("privkey:hexraw", boot.Lit(hex.EncodeToString(c.key))))
	}
}

// failed says why the server was of no use.
func (c scriptConfig) failed(s *boot.Script, host string) {
	s.Do(boot.Echo("nestboot: "+host+" did not let this machine boot, errno", boot.Var("errno", "")))
	if c.key == nil {
		s.Do(boot.Echo("nestboot: set " + c.set + " has no key: the machine waits for approval"))
	}
	if c.foreign && c.marked != "" {
		c.chainOurs(s)
	}
}

// chainOurs starts the set's undionly.kpxe if this is an iPXE in BIOS that is
// not it: a network card's own, which announces the user class iPXE too. Ours
// tells itself by its version (see mark), so that it never loads itself again;
// that is compared in hexadecimal, because others have blanks in theirs. What
// fails here ends in the pause.
func (c scriptConfig) chainOurs(s *boot.Script) {
	s.DoOr(boot.Cmd("iseq", boot.Var("platform", ""), boot.Lit(string(boot.BIOS))), boot.Goto("pause"))
	s.When(boot.Cmd("iseq", boot.Var("version", "hexraw"), boot.Lit(hex.EncodeToString([]byte(c.marked)))), boot.Goto("pause"))
	s.Do(boot.Echo("nestboot: this iPXE may lack the trust, loading " + c.set + "/" + nameKPXE + " by TFTP"))
	s.Try(boot.Set(settingTFTP, boot.Var("next-server", "")))
	s.When(boot.Cmd("isset", boot.Var("proxydhcp/next-server", "")), boot.Set(settingTFTP, boot.Var("proxydhcp/next-server", "")))
	s.Try(boot.Cmd("chain", boot.Lit("--autofree"),
		boot.Join(boot.Lit("tftp://"), boot.Var(settingTFTP, ""), boot.Lit("/"+c.set+"/"+nameKPXE))))
}

// isLocal is true when the server's script said that the local disk is next.
func isLocal() boot.Command {
	return boot.Cmd("iseq", boot.Join(boot.Lit("x"), boot.Var(boot.SettingLocal, "")), boot.Lit("x1"))
}

// local leaves for the local disk. BIOS starts the first disk; UEFI goes on to
// its next boot option only if this one ends with an error (UEFI 2.10, 3.1.7),
// else it stops at its menu.
func local(s *boot.Script) {
	s.DoOr(boot.Cmd("iseq", boot.Var("platform", ""), boot.Lit(string(boot.BIOS))), boot.Cmd("exit", boot.Lit("1")))
	s.Try(boot.Cmd("sanboot", boot.Lit("--no-describe"), boot.Lit("--drive"), boot.Lit("0x80")))
	s.Do(boot.Cmd("exit", boot.Lit("0")))
}

// hostOf is the host and port of https://host[:port].
func hostOf(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.TrimSuffix(base, u.Host) != "https://" {
		return "", fmt.Errorf("base URL %q is not https://host[:port]", base)
	}
	return u.Host, nil
}

// question is the URL of /ipxe/boot with what the server wants to know.
func question(base string) boot.Word {
	return boot.Join(
		boot.Lit(base+"/ipxe/boot?uuid="), boot.Var("uuid", ""),
		boot.Lit("&mac="), boot.Var("netX/mac", "hexhyp"),
		boot.Lit("&serial="), boot.Var("serial", "uristring"),
		boot.Lit("&arch="), boot.Var("buildarch", ""),
		boot.Lit("&platform="), boot.Var("platform", ""),
		boot.Lit("&ip="), boot.Var("netX/ip", ""),
	)
}

func setPause(d time.Duration) boot.Command {
	return boot.Set(settingPause+":int32", seconds(d))
}

// lengthen adds firstPause to the pause until it is lastPause.
func lengthen(s *boot.Script) {
	s.DoOr(
		boot.Cmd("iseq", boot.Var(settingPause, "int32"), seconds(lastPause)),
		boot.Cmd("inc", boot.Lit(settingPause), seconds(firstPause)),
	)
}

func seconds(d time.Duration) boot.Word { return boot.Lit(fmt.Sprint(int(d.Seconds()))) }
