package lab

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// libraries returns the shared libraries that the programs need, and those that they need, the dynamic loader
// included; each is looked for in dirs.
func libraries(dirs []string, programs ...string) ([]string, error) {
	var found []string
	todo := slices.Clone(programs)
	for len(todo) > 0 {
		names, err := imports(todo[0])
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			path, err := locate(dirs, name)
			if err != nil {
				return nil, fmt.Errorf("%s needs %s: %w", todo[0], name, err)
			}
			if !slices.Contains(found, path) {
				found = append(found, path)
				todo = append(todo, path)
			}
		}
		todo = todo[1:]
	}
	slices.Sort(found)
	return found, nil
}

func imports(path string) ([]string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer file.Close()
	names, err := file.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("read the libraries of %s: %w", path, err)
	}
	return names, nil
}

func locate(dirs []string, name string) (string, error) {
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, name))
		if err != nil || len(found) == 1 {
			return filepath.Join(dir, name), err
		}
	}
	return "", fmt.Errorf("not in %s: %w", strings.Join(dirs, ", "), fs.ErrNotExist)
}

// loadOrder returns the files of the named kernel modules and of all that they depend on, each after its own
// dependencies. dir is the folder of one kernel version. Modules carry this themselves, so nothing needs depmod.
func loadOrder(dir string, names ...string) ([]string, error) {
	files, err := moduleFiles(dir)
	if err != nil {
		return nil, err
	}
	var order []string
	var visit func(name string) error
	visit = func(name string) error {
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel module %s: not in %s", name, dir)
		}
		if slices.Contains(order, path) {
			return nil
		}
		depends, err := moduleDepends(path)
		if err != nil {
			return err
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		order = append(order, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleFiles maps names of modules, which have underscores, to files, which may have dashes.
func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list kernel modules: %w", err)
	}
	return files, nil
}

// moduleDepends reads depends= from the section .modinfo, which holds key=value strings ended by NUL (modinfo(8)).
func moduleDepends(path string) ([]string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read kernel module %s: %w", path, err)
	}
	defer file.Close()
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read kernel module %s: no section .modinfo", path)
	}
	data, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read kernel module %s: %w", path, err)
	}
	return parseDepends(data), nil
}

func parseDepends(modinfo []byte) []string {
	for entry := range bytes.SplitSeq(modinfo, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			return strings.Split(list, ",")
		}
	}
	return nil
}
