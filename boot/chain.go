package boot

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Question is the URL of /ipxe/boot below base, with what the server wants to
// know of a machine. Settings that are free text are sent URI-encoded (T16).
func Question(base string) Word {
	return Join(
		Lit(base+"/ipxe/boot?uuid="), Var("uuid", ""),
		Lit("&mac="), Var("netX/mac", "hexhyp"),
		Lit("&serial="), Var("serial", "uristring"),
		Lit("&arch="), Var("buildarch", ""),
		Lit("&platform="), Var("platform", ""),
		Lit("&ip="), Var("netX/ip", ""),
	)
}

// The pause between two questions: chainPause, then longer by it each time
// until chainPauses.
const (
	chainPause   = 5 * time.Second
	chainPauses  = 60 * time.Second
	settingPause = "nestboot-pause"
)

// ChainScript is what a chain URL answers: a whole iPXE script that asks below
// address (https://boot.example.com/chain/<token>) what to do, for ever, with
// growing pauses. It runs in a provider's stock iPXE, which has brought up the
// network already and has no certificate of ours. It names the machine by the
// literal ${uuid}, which iPXE expands, or whoever hands the script on.
//
// It leaves crosscert alone: a stock iPXE may need it to find the root of a
// publicly trusted server certificate. The script holds the address, so it is
// a secret.
func ChainScript(name, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || Lit(address).err != nil {
		return nil, errors.New("chain script: its URL is not https://host/path or http://host/path") // not repeated: it holds a token
	}
	s := &Script{}
	s.Comment("nestboot, chain URL " + onePrintableLine(strings.TrimRight(name, `\`)) + ". This script holds a secret.")
	s.Do(Set(SettingLocal))
	s.Label("start")
	s.Do(Set(settingPause+":int32", seconds(chainPause)))
	s.Label("retry")
	s.Do(Echo("nestboot: asking " + u.Host))
	s.DoOr(Cmd("chain", Lit("--autofree"), Question(address)), Goto("failed"))
	s.When(Cmd("iseq", Join(Lit("x"), Var(SettingLocal, "")), Lit("x1")), Goto("local"))
	s.Try(Sleep(time.Second)) // whatever the server's script did, this loop never spins
	s.Do(Goto("start"))
	s.Label("failed")
	s.Do(Echo("nestboot: "+u.Host+" did not let this machine boot, errno", Var("errno", "")))
	s.Do(Echo("nestboot: trying again in", Var(settingPause, "int32"), Lit("seconds,"), Lit("Ctrl-C"), Lit("to"), Lit("hurry")))
	s.Try(Cmd("sleep", Var(settingPause, "int32")))
	s.DoOr(Cmd("iseq", Var(settingPause, "int32"), seconds(chainPauses)), Cmd("inc", Lit(settingPause), seconds(chainPause)))
	s.Do(Goto("retry"))
	s.Label("local")
	LeaveForDisk(s)
	return s.Bytes()
}

// LeaveForDisk adds the end of a script that leaves iPXE for the local disk.
// BIOS starts the first disk; UEFI goes on to its next boot option only if this
// one ends with an error (UEFI 2.10, 3.1.7), else it stops at its menu.
func LeaveForDisk(s *Script) {
	s.DoOr(Cmd("iseq", Var("platform", ""), Lit(string(BIOS))), Cmd("exit", Lit("1")))
	s.Try(Cmd("sanboot", Lit("--no-describe"), Lit("--drive"), Lit("0x80")))
	s.Do(Cmd("exit", Lit("0")))
}

func seconds(d time.Duration) Word { return Lit(strconv.Itoa(int(d.Seconds()))) }
