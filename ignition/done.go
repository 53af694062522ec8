package ignition

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_4/types"
)

// Everything below ourDir and the unit are nestboot's own; conflicts keeps a base away from them.
const (
	ourDir     = "/etc/nestboot"
	rootPath   = ourDir + "/root.pem"
	headerPath = ourDir + "/done.header"
	unitName   = "nestboot-done.service"
	unitDir    = "/etc/systemd/system"
)

// unitText is the phone-home. Seen working with curl 7.88 (Debian 12).
//
//   - The header file holds the token, so that neither unit nor process list does. It is removed after success: a
//     boot from the disk that Ignition wrote finds the condition false and reports nothing.
//   - --capath keeps curl from trusting the image's own authorities beside ours; the directory holds no hashed names.
//   - --globoff leaves the brackets of an IPv6 address alone.
//   - curl tries for about a minute, then systemd every two minutes without end: a machine is never given up because
//     the server was away for a night.
const unitText = `[Unit]
Description=Report to nestboot that this machine is up
ConditionPathExists=` + headerPath + `
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/curl --fail --silent --show-error --globoff --connect-timeout 10 --max-time 30 --retry 5 --retry-all-errors --cacert ` + rootPath + ` --capath ` + ourDir + ` --header @` + headerPath + ` --request POST %s
ExecStartPost=/usr/bin/rm --force ` + headerPath + `
Restart=on-failure
RestartSec=120

[Install]
WantedBy=multi-user.target
`

func doneUnit(url string) types.Unit {
	return types.Unit{Name: unitName, Enabled: new(true), Contents: new(fmt.Sprintf(unitText, url))}
}

// conflicts names every entry of a base that would fight with what Render adds.
func conflicts(base types.Config) error {
	var list []error
	if base.Ignition.Config.Replace.Source != nil {
		list = append(list, errors.New("ignition.config.replace would drop hostname and phone-home: use ignition.config.merge"))
	}
	for _, u := range base.Systemd.Units {
		if u.Name == unitName {
			list = append(list, fmt.Errorf("unit %s is written by nestboot: choose another name", unitName))
		}
	}
	for _, n := range nodes(base.Storage) {
		if ours(n.Path) {
			list = append(list, fmt.Errorf("path %s belongs to nestboot: choose another", n.Path))
		}
	}
	for _, l := range base.Storage.Links {
		if l.Path == path.Dir(ourDir) || l.Path == unitDir || l.Path == path.Dir(unitDir) {
			list = append(list, fmt.Errorf("link %s would lead nestboot's files astray: remove it", l.Path))
		}
	}
	return errors.Join(list...)
}

func nodes(s types.Storage) []types.Node {
	var list []types.Node
	for _, d := range s.Directories {
		list = append(list, d.Node)
	}
	for _, f := range s.Files {
		list = append(list, f.Node)
	}
	for _, l := range s.Links {
		list = append(list, l.Node)
	}
	return list
}

// ours tells whether path is ourDir, the unit, or something beneath one of them (or the unit's drop-ins).
func ours(path string) bool {
	return strings.HasPrefix(path+"/", ourDir+"/") || strings.HasPrefix(path, unitDir+"/"+unitName)
}
