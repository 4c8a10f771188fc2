package driver

import (
	"fmt"
	"strings"
)

// ParametersDocument is PARAMETERS.md: what a StorageClass may say. A test holds
// the file to it; make generate writes it anew.
func ParametersDocument() string {
	var b strings.Builder
	b.WriteString(`<!-- Made from the table in driver/params.go by make generate. -->

# Parameters of a volume

They stand in a StorageClass, or behind ` + "`--param`" + ` of ` + "`holdfast volume create`" + `. An unknown parameter is refused. Two spellings of one parameter with different values are refused. A volume keeps its parameters for life: the same name with other parameters is refused.

| parameter | also spelled | allowed | without it |
|---|---|---|---|
`)
	for _, p := range parameters {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.name, quoted(spellings(p)), p.values, p.usual)
	}
	for _, p := range parameters {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", p.name, p.text)
	}
	b.WriteString(`
## Which buckets and folders a volume may have

1. Without ` + "`bucketName`" + ` a volume makes a bucket of its own.
2. A name with ` + "`${…}`" + ` is filled in from the claim. It never takes what is there already: the bucket has to be new; with ` + "`prefix`" + ` the folder has to be empty and no other volume's. Claims can choose their names, so a template could lead to somebody else's data.
3. A name without ` + "`${…}`" + ` was chosen by whoever wrote the StorageClass. It may name a bucket that exists, or a folder with content, if ` + "`onDelete`" + ` is ` + "`retain`" + ` or ` + "`archive`" + `. Several volumes may share it. A size below what lies there is refused; it is counted for 10 seconds at most, so that very many small files refuse nobody: then the mount may be full from the start.
4. A bucket that belongs to a volume (it was made for it) is never given to another one.
5. An adopted bucket, or one with folders of volumes, is never deleted. In its root entry Holdfast notes that empty folders are to be kept, and if the whole bucket is a volume, an owner and the mode 0777.
6. A bucket that keeps old versions cannot be mounted, and is refused.

The templates need external-provisioner with ` + "`--extra-create-metadata`" + `.

## Where content is stored

` + "`replication`, `diskType` and `dataCenter`" + ` become one rule in the filer's ` + "`/etc/seaweedfs/filer.conf`" + `, for the volume's bucket or folder. It holds for the mount and for S3.

1. The servers are looked at when the volume is made, and the volume is refused if what it asks for cannot be had then. Later the rule stays, whatever becomes of the servers.
2. There is one rule for a bucket or a folder. If somebody has made one already, or another volume has its placement there, the volume is refused.
3. What a volume does not ask for is as a rule above it says (that of the bucket for a folder, that of ` + "`/`" + ` or ` + "`/buckets/`" + ` for all), or as the cluster does it by itself.
4. What was stored before (in a bucket that is adopted) stays where it is, and so does what is moved from one volume to another of the same bucket. What a mount of the whole bucket writes into a volume's folder is placed as the bucket is, if it is small.
5. The rule goes with the volume: what is written later into a bucket that stays (retain) is stored as the cluster does it by itself. With archive it stays as long as the volume's record. What others have written into it stays.

## How a volume is mounted

` + "`mountOptions`" + ` of a StorageClass or a PersistentVolume (CSI's mount flags) may be ` + "`" + strings.Join(mountFlags, "`, `") + "`" + `; others are refused, and so are ` + "`ro`" + ` and ` + "`rw`" + ` together. ` + "`ro`" + ` and ` + "`noexec`" + ` hold where a pod has the volume, not at the staging path; ` + "`rw`" + ` does not make writable what is read-only otherwise. ` + "`nosuid`" + ` and ` + "`nodev`" + ` hold always. The others have no effect: reading does not update access times. ` + "`context=…`" + ` is for the kubelet, which adds it on nodes with SELinux where CSIDriver has seLinuxMount: a node has one context for a volume, and refuses another while the volume is mounted.

The file system type (` + "`csi.storage.k8s.io/fstype`" + `) is ` + "`" + fileSystem + "`" + ` or left out; others are refused.

## PersistentVolumes made by hand

` + "`volumeHandle`" + ` is the id of a volume that is there (` + "`ListVolumes`, `holdfast volume list`" + `, the ` + "`volumeHandle`" + ` of the PersistentVolume that it had), ` + "`driver`" + ` is ` + "`" + Name + "`" + `, and ` + "`volumeAttributes`" + ` are not needed: nodes read the volume's record. Attributes that name another bucket or folder than the volume has are refused. ` + "`accessModes`" + ` have to be such as the volume was made for.

A bucket that no volume has yet becomes one by a ` + "`volumeHandle`" + ` of your choice (3 to 63 lower-case letters, digits, dots and hyphens) that no volume has, and ` + "`volumeAttributes`" + `: ` + "`" + bucketAttribute + "`" + `, and if you like ` + "`" + sizeAttribute + "`" + ` (512Mi, 10Gi; without it the volume has no limit: ` + "`spec.capacity`" + ` is not told to a driver), ` + "`" + strings.Join(staticParameters[1:], "`, `") + "`" + `, as above; any other attribute is refused. The bucket has to be there, and must not belong to a volume that was made for it. It is let in with the first mount, which may take some seconds, and adopted: ` + "`onDelete`" + ` is ` + "`retain`" + `, nothing else is possible, and nothing of Holdfast ever deletes the bucket or what is in it, whatever ` + "`persistentVolumeReclaimPolicy`" + ` says. From then on it is a volume like others, with the access mode of its first mount; with the PersistentVolume gone, ` + "`holdfast volume delete`" + ` forgets it and leaves the bucket. Only administrators write PersistentVolumes, and what a pod's author can write reaches no bucket that is there (below).

## Inline volumes

A volume may stand in a pod's own specification (` + "`volumes: - csi: {driver: csi.holdfast.io, volumeAttributes: …}`" + `). Its bucket is made when the pod starts and deleted when the pod is gone, also after the loss of its node. One pod has it, on one node. The pod's author writes the attributes, so only these are allowed: ` + "`" + sizeAttribute + "`" + ` (512Mi, 10Gi; 1Gi without it; at most what the administrator allows: ` + "`inlineVolumes.maxSize`" + ` of the chart, which is 10Gi unless set, ` + "`--inline-max-size`" + ` of the node service elsewhere), ` + "`" + optionsAttribute + "`" + ` (by commas, as above, without ` + "`noexec`" + `), ` + "`" + strings.Join(inlineParameters, "`, `") + "`" + `. Anything that names a bucket, keeps one, or says where content is stored is refused by name; so are secrets. What one needs of those, one takes from a claim.

## Parameters of other drivers

` + "`path`" + ` (` + seaweedfsCSI + `): /buckets/NAME or /buckets/NAME/FOLDER, the same as ` + "`bucketName`" + ` and ` + "`prefix`" + `. ` + "`" + strings.Join(cacheNames, "`, `") + "`" + ` (` + seaweedfsCSI + `): ` + "`cacheSize`" + ` in MiB. The following have no effect. A value that asks for what is so anyway is accepted, others are refused with the reason.

| parameter | of | accepted | why |
|---|---|---|---|
`)
	for _, f := range foreign {
		accepted := f.accepted
		if accepted == "" {
			accepted = "-"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", quoted(f.names), f.of, accepted, f.reason)
	}
	return b.String()
}

// ParameterNames are the names in the table.
func ParameterNames() []string {
	var names []string
	for _, p := range parameters {
		names = append(names, p.name)
	}
	return names
}

// ParametersHelp is the same for a terminal, in short.
func ParametersHelp() string {
	var b strings.Builder
	for _, p := range parameters {
		fmt.Fprintf(&b, "%s: %s\n", p.name, p.values)
		if names := spellings(p); len(names) > 0 {
			fmt.Fprintf(&b, "    also spelled %s\n", strings.Join(names, ", "))
		}
		fmt.Fprintf(&b, "    without it: %s\n", p.usual)
		for _, line := range wrap(p.text, 74) {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	return b.String()
}

func spellings(p parameter) []string {
	if p.name == "bucketName" {
		return append([]string{pathName}, p.aliases...)
	}
	return p.aliases
}

func quoted(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return "`" + strings.Join(names, "`, `") + "`"
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
