package disk

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a tree, in writing and in reading.
const (
	maxEntries = 512       // files and folders together
	maxDepth   = 7         // folders above a file; ISO 9660 allows 8 levels, the root included
	maxFolder  = 128 << 10 // bytes of a folder's list
)

// node is a file or folder that is to be written.
type node struct {
	name     string
	data     []byte  // of a file
	folder   bool    // else a file
	parent   *node   // of the root: the root
	children []*node // of a folder, by name
	start    int     // first sector (ISO 9660) or cluster (FAT), known after layout
	size     int     // bytes: of a file its data, of a folder its list, known after layout
}

// newTree sorts files into folders. name checks one part of a path and returns
// it as it will be stored; names that differ only in case are the same one.
func newTree(files []File, name func(string) (string, error)) (*node, error) {
	root := &node{folder: true}
	root.parent = root
	entries := 0
	for _, f := range files {
		added, err := root.add(f, name)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", f.Path, err)
		}
		if entries += added; entries > maxEntries {
			return nil, fmt.Errorf("more than %d files and folders", maxEntries)
		}
	}
	root.sort()
	return root, nil
}

// add hangs a file into the tree below n and returns how many nodes that made.
func (n *node) add(f File, name func(string) (string, error)) (added int, err error) {
	parts := strings.Split(f.Path, "/")
	if len(parts) > maxDepth+1 {
		return 0, fmt.Errorf("more than %d folders deep", maxDepth)
	}
	for i, part := range parts {
		part, err := name(part)
		if err != nil {
			return 0, err
		}
		last := i == len(parts)-1
		child := n.child(part)
		switch {
		case child == nil:
			child = &node{name: part, parent: n, folder: !last}
			n.children = append(n.children, child)
			added++
		case last || !child.folder:
			return 0, errors.New("the name is taken by another file or folder")
		}
		n = child
	}
	n.data, n.size = f.Data, len(f.Data)
	return added, nil
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if strings.EqualFold(c.name, name) {
			return c
		}
	}
	return nil
}

func (n *node) sort() {
	slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	for _, c := range n.children {
		c.sort()
	}
}

// breadthFirst lists n and all below it, level by level.
func (n *node) breadthFirst() []*node {
	all := []*node{n}
	for i := 0; i < len(all); i++ {
		all = append(all, all[i].children...)
	}
	return all
}

// walker collects the files of a foreign tree within the bounds.
type walker struct {
	seen  map[string]bool // paths of files and folders, in lower case
	files []File
}

// enter takes note of an entry at path, before anything is done with it.
func (w *walker) enter(path string) error {
	key := strings.ToLower(path)
	if w.seen[key] {
		return fmt.Errorf("%s is there twice: not an image of ours", path)
	}
	if len(w.seen) == maxEntries {
		return fmt.Errorf("more than %d files and folders", maxEntries)
	}
	w.seen[key] = true
	if strings.Count(path, "/") > maxDepth {
		return fmt.Errorf("%s: more than %d folders deep", path, maxDepth)
	}
	return nil
}

// cut is the n bytes of data from offset on. It copies nothing.
func cut(data []byte, offset, n uint64) ([]byte, error) {
	if size := uint64(len(data)); offset > size || n > size-offset {
		return nil, fmt.Errorf("%d bytes at %d reach beyond the end at %d: the image is cut short or damaged", n, offset, size)
	}
	return data[offset : offset+n : offset+n], nil
}
