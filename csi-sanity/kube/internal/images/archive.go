// Package images makes container images from files of this machine, with no
// registry, no daemon and nothing but the standard library.
//
// Owns: OCI image archives of one layer, which `ctr images import` reads.
//
// Never: a network, or a file that differs when its inputs do not: times are
// left out.
//
// Flow: Image.Write reads the files, makes the layer and its descriptions in
// memory, and writes them as one tar file.
//
// Locks: none.
package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Image is what an archive holds.
type Image struct {
	// Ref is the whole name, with a registry and a tag: docker.io/library/name:tag is
	// what a manifest calls name:tag.
	Ref string
	// Files are paths in the image and where their content comes from.
	Files map[string]string
	// Links are symbolic links: path in the image, target.
	Links map[string]string
	// Texts are small files, executable ones: path in the image, content.
	Texts map[string]string
	// Entrypoint is the program and its first arguments.
	Entrypoint []string
	// User is uid:gid, or empty for root.
	User string
}

// folders are in every image, as in those that a shell or a program with
// temporary files is for.
var folders = []string{"dev", "etc", "proc", "run", "sys", "tmp", "var"}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type object = map[string]any

// Write writes the archive.
func (i Image) Write(w io.Writer) error {
	repository, tag := i.Ref[:max(strings.LastIndex(i.Ref, ":"), 0)], i.Ref[strings.LastIndex(i.Ref, ":")+1:]
	if repository == "" || strings.Contains(tag, "/") {
		return fmt.Errorf("image %q: a name with a tag is wanted, as in registry/path:tag", i.Ref)
	}
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Ref, err)
	}
	platform := object{"architecture": runtime.GOARCH, "os": "linux"}
	configuration := encode(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": i.Entrypoint, "Env": []string{searchPath}, "User": i.User, "WorkingDir": "/"},
		"rootfs": object{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	const types = "application/vnd.oci.image."
	manifest := encode(object{
		"schemaVersion": 2, "mediaType": types + "manifest.v1+json",
		"config": describe(types+"config.v1+json", configuration),
		"layers": []object{describe(types+"layer.v1.tar", layer)},
	})
	index := describe(types+"manifest.v1+json", manifest)
	index["platform"] = platform
	index["annotations"] = object{"io.containerd.image.name": i.Ref, "org.opencontainers.image.ref.name": tag}

	archive := tar.NewWriter(w)
	put := func(name string, content []byte) {
		if err == nil {
			err = addFile(archive, name, 0o644, content)
		}
	}
	put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	put("index.json", encode(object{"schemaVersion": 2, "manifests": []object{index}}))
	for _, blob := range [][]byte{layer, configuration, manifest} {
		put("blobs/sha256/"+strings.TrimPrefix(digest(blob), "sha256:"), blob)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Ref, err)
	}
	return archive.Close()
}

// layer is the image's file system as a tar file.
func (i Image) layer() ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	made := map[string]bool{".": true}
	for _, dir := range folders {
		if err := addFolders(w, made, dir); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(i.Files) {
		content, err := os.ReadFile(i.Files[name])
		if err != nil {
			return nil, err
		}
		if err := addFolders(w, made, path.Dir(relative(name))); err != nil {
			return nil, err
		}
		if err := addFile(w, relative(name), 0o755, content); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(i.Texts) {
		if err := addFolders(w, made, path.Dir(relative(name))); err != nil {
			return nil, err
		}
		if err := addFile(w, relative(name), 0o755, []byte(i.Texts[name])); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(i.Links) {
		if err := addFolders(w, made, path.Dir(relative(name))); err != nil {
			return nil, err
		}
		link := &tar.Header{Typeflag: tar.TypeSymlink, Name: relative(name), Linkname: i.Links[name], Mode: 0o777}
		if err := w.WriteHeader(link); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// addFolders adds a folder and those that it is in, once each.
func addFolders(w *tar.Writer, made map[string]bool, dir string) error {
	if made[dir] {
		return nil
	}
	if err := addFolders(w, made, path.Dir(dir)); err != nil {
		return err
	}
	made[dir] = true
	mode := int64(0o755)
	if dir == "tmp" {
		mode = 0o1777
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode})
}

func addFile(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func relative(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }

func sortedKeys(m map[string]string) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func describe(mediaType string, content []byte) object {
	return object{"mediaType": mediaType, "digest": digest(content), "size": len(content)}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// encode is for values of strings, numbers and these in slices and maps, which
// always can be.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
