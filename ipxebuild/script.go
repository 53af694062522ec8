package ipxebuild

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nestboot/nestboot/boot"
)

// ScriptConfig is what the script of a set is made of.
type ScriptConfig struct {
	Set  string // name of the set, shown on the console
	Base string // https://host[:port] of the name that asks for client certificates
	Cert []byte // DER of the client certificate
	Key  []byte // DER of its private key (PKCS #1 or SEC 1)
}

// The pause between two tries: firstPause, then longer by it each time until
// lastPause, so that a rack without a server neither spins nor floods.
const (
	firstPause = 5 * time.Second
	lastPause  = 60 * time.Second
)

const settingPause = "nestboot-pause"

// Script renders the script that makes a stock iPXE binary one of the set: it
// sets the client certificate, brings up the network over whichever interface
// answers, and asks /ipxe/boot what to do, for ever, with growing pauses. It
// holds the private key.
//
// Settings that a DHCP server could plant are cleared or encoded first (T16):
// crosscert is emptied so that a refused chain is not looked up elsewhere, and
// the only free text, the serial number, is sent URI-encoded. uuid and serial
// come from SMBIOS alone (src/interface/smbios/smbios_settings.c, 1.21.1).
func Script(c ScriptConfig) ([]byte, error) {
	u, err := url.Parse(c.Base)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.TrimSuffix(c.Base, u.Host) != "https://" {
		return nil, fmt.Errorf("script of set %s: base URL %q is not https://host[:port]", c.Set, c.Base)
	}
	s := &boot.Script{}
	s.Comment("nestboot, artifact set " + c.Set + ". This file holds a private key.")
	s.Do(boot.Set("crosscert"))
	s.Do(boot.Set(boot.SettingLocal))
	s.Do(boot.Set("cert:hexraw", boot.Lit(hex.EncodeToString(c.Cert))))
	s.Do(boot.Set("privkey:hexraw", boot.Lit(hex.EncodeToString(c.Key))))
	s.Label("start")
	s.Do(setPause(firstPause))
	s.Label("retry")
	s.Do(boot.Echo("nestboot: set " + c.Set + ", looking for " + u.Host))
	s.DoOr(boot.Cmd("dhcp"), boot.Goto("no-network"))
	s.DoOr(boot.Cmd("chain", boot.Lit("--autofree"), question(c.Base)), boot.Goto("failed"))
	s.When(boot.Cmd("iseq", boot.Join(boot.Lit("x"), boot.Var(boot.SettingLocal, "")), boot.Lit("x1")), boot.Cmd("exit", boot.Lit("0")))
	s.Try(boot.Sleep(time.Second)) // whatever the server's script did, this loop never spins
	s.Do(boot.Goto("start"))
	s.Label("no-network")
	s.Do(boot.Echo("nestboot: no network interface got an address by DHCP, errno", boot.Var("errno", "")))
	s.Do(boot.Goto("pause"))
	s.Label("failed")
	s.Do(boot.Echo("nestboot: "+u.Host+" did not let this machine boot, errno", boot.Var("errno", "")))
	s.Label("pause")
	s.Do(boot.Echo("nestboot: trying again in", boot.Var(settingPause, "int32"), boot.Lit("seconds,"), boot.Lit("Ctrl-C"), boot.Lit("to"), boot.Lit("hurry")))
	s.Try(boot.Cmd("sleep", boot.Var(settingPause, "int32")))
	lengthen(s)
	s.Do(boot.Goto("retry"))
	return s.Bytes()
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
