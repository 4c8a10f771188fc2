package helm

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// This file holds what the chart promises whatever the values.

// workload is a Deployment, DaemonSet, StatefulSet or Job.
type workload struct {
	name string
	pod  corev1.PodTemplateSpec
}

func workloads(all []runtime.Object) (found []workload) {
	for _, o := range all {
		switch o := o.(type) {
		case *appsv1.Deployment:
			found = append(found, workload{o.Name, o.Spec.Template})
		case *appsv1.DaemonSet:
			found = append(found, workload{o.Name, o.Spec.Template})
		case *appsv1.StatefulSet:
			found = append(found, workload{o.Name, o.Spec.Template})
		case *batchv1.Job:
			found = append(found, workload{o.Name, o.Spec.Template})
		}
	}
	return found
}

func (w workload) containers() []corev1.Container {
	return slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers)
}

// each calls f with the objects of every set of values.
func each(t *testing.T, f func(t *testing.T, all []runtime.Object)) {
	t.Helper()
	for name, v := range cases(t) {
		t.Run(name, func(t *testing.T) {
			all := objects(t, manifest(t, v))
			if len(workloads(all)) < 4 {
				t.Fatalf("only %d workloads", len(workloads(all)))
			}
			f(t, all)
		})
	}
}

// TestOnlyTheKeeperIsPrivileged: and everything else has nothing that it could be made to
// use: no capability, no root but where the kubelet's folders are root's, no file of its own
// image to change.
func TestOnlyTheKeeperIsPrivileged(t *testing.T) {
	each(t, func(t *testing.T, all []runtime.Object) {
		for _, w := range workloads(all) {
			keeper, spec := w.name == "holdfast-keeper", w.pod.Spec
			if spec.HostNetwork || spec.HostIPC || spec.HostPID != keeper {
				t.Errorf("%s: hostNetwork %v, hostIPC %v, hostPID %v", w.name, spec.HostNetwork, spec.HostIPC, spec.HostPID)
			}
			for _, c := range w.containers() {
				at, s := w.name+"/"+c.Name, c.SecurityContext
				if s == nil {
					t.Errorf("%s: no security context", at)
					continue
				}
				if privileged := s.Privileged != nil && *s.Privileged; privileged != keeper {
					t.Errorf("%s: privileged is %v", at, privileged)
				}
				if s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s: its root file system can be written", at)
				}
				for _, m := range c.VolumeMounts {
					if p := m.MountPropagation; p != nil && *p == corev1.MountPropagationBidirectional && !keeper {
						t.Errorf("%s: what it mounts is seen by the node", at)
					}
				}
				if keeper {
					continue
				}
				if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
					t.Errorf("%s: privileges can be gained", at)
				}
				if s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
					t.Errorf("%s: no seccomp profile", at)
				}
				if s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
					t.Errorf("%s: keeps capabilities", at)
				} else if add := s.Capabilities.Add; len(add) > 0 && (c.Name != "folder" || !slices.Equal(add, []corev1.Capability{"CHOWN"})) {
					t.Errorf("%s: has the capabilities %v", at, add)
				}
				root := s.RunAsUser != nil && *s.RunAsUser == 0
				if may := w.name == "holdfast-node" || c.Name == "folder"; root && !may {
					t.Errorf("%s: is root", at)
				} else if !root {
					user := s.RunAsUser
					if user == nil && spec.SecurityContext != nil {
						user = spec.SecurityContext.RunAsUser
					}
					if user == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
						t.Errorf("%s: does not say which user it is, or that this is not root", at)
					}
				}
			}
		}
	})
}

// TestFoldersOfTheNode: only the pods of the node get some, and each only those that it needs.
func TestFoldersOfTheNode(t *testing.T) {
	allowed := map[string]string{
		"holdfast-keeper":  `^/var/lib/(k0s/)?kubelet(/plugins/csi\.holdfast\.io)?$`,
		"holdfast-mounter": `^(/var/lib/(k0s/)?kubelet/plugins/csi\.holdfast\.io|/var/lib/holdfast)$`,
		"holdfast-node":    `^/var/lib/(k0s/)?kubelet(/plugins/csi\.holdfast\.io|/plugins_registry)?$`,
	}
	each(t, func(t *testing.T, all []runtime.Object) {
		for _, w := range workloads(all) {
			for _, v := range w.pod.Spec.Volumes {
				if v.HostPath == nil {
					continue
				}
				if pattern, ok := allowed[w.name]; !ok || !regexp.MustCompile(pattern).MatchString(v.HostPath.Path) {
					t.Errorf("%s: has the node's %s", w.name, v.HostPath.Path)
				}
			}
		}
	})
}

// TestRights: nobody may read Secrets of other namespaces, or list any, or give himself more.
func TestRights(t *testing.T) {
	each(t, func(t *testing.T, all []runtime.Object) {
		check := func(name string, rules []rbacv1.PolicyRule, everywhere, secrets bool) {
			for _, r := range rules {
				if slices.Contains(r.Resources, "*") || slices.Contains(r.Verbs, "*") || slices.Contains(r.APIGroups, "*") {
					t.Errorf("%s: a rule with *", name)
				}
				if slices.Contains(r.APIGroups, rbacv1.GroupName) {
					t.Errorf("%s: may change rights", name)
				}
				for _, resource := range r.Resources {
					what, _, _ := strings.Cut(resource, "/")
					if what == "pods" && slices.ContainsFunc(r.Verbs, func(v string) bool { return v != "get" && v != "list" && v != "watch" }) {
						t.Errorf("%s: may do %v to pods", name, r.Verbs)
					}
					if what != "secrets" {
						continue
					}
					if everywhere {
						t.Errorf("%s: may do %v to Secrets of the whole cluster", name, r.Verbs)
					}
					if len(r.ResourceNames) == 0 && !secrets && !slices.Equal(r.Verbs, []string{"create"}) {
						t.Errorf("%s: may do %v to any Secret of the namespace", name, r.Verbs)
					}
				}
			}
		}
		for _, o := range all {
			switch o := o.(type) {
			case *rbacv1.ClusterRole:
				check("ClusterRole "+o.Name, o.Rules, true, false)
			case *rbacv1.ClusterRoleBinding:
				if o.RoleRef.Name != "holdfast-controller" && o.RoleRef.Name != "holdfast-node" {
					t.Errorf("ClusterRoleBinding %s gives %s", o.Name, o.RoleRef.Name)
				}
			case *rbacv1.Role:
				// Where an administrator asked for Secrets beside claims.
				asked := o.Name == "holdfast-s3-secrets" && (o.Namespace == "team-a" || o.Namespace == "team-b")
				check("Role "+o.Name, o.Rules, false, asked)
			case *corev1.ServiceAccount:
				if o.AutomountServiceAccountToken == nil || *o.AutomountServiceAccountToken {
					t.Errorf("ServiceAccount %s: every pod of it gets a token", o.Name)
				}
			}
		}
	})
}

// TestIssuerMayKeepWhatIsMounted: each Secret that a pod waits for is one that the issuer may
// write, or pods would wait for ever.
func TestIssuerMayKeepWhatIsMounted(t *testing.T) {
	for name, v := range cases(t) {
		if name == "external" {
			continue
		}
		all := objects(t, manifest(t, v))
		var may []string
		for _, o := range all {
			if r, ok := o.(*rbacv1.Role); ok && r.Name == "holdfast-issuer" {
				may = r.Rules[0].ResourceNames
			}
		}
		seen := 0
		for _, w := range workloads(all) {
			for _, v := range w.pod.Spec.Volumes {
				if v.Secret == nil {
					continue
				}
				seen++
				if !slices.Contains(may, v.Secret.SecretName) {
					t.Errorf("%s: %s mounts Secret %s, which nobody makes", name, w.name, v.Secret.SecretName)
				}
			}
		}
		if seen < 8 {
			t.Errorf("%s: only %d Secrets are mounted", name, seen)
		}
	}
}

// upstream are the images that the default values may name. Another version is a change that
// somebody has to look at.
var upstream = []string{
	"chrislusf/seaweedfs:4.48_large_disk",
	"ghcr.io/holdfast-csi/holdfast:0.1.0",
	"registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.17.0",
	"registry.k8s.io/sig-storage/csi-provisioner:v6.3.0",
	"registry.k8s.io/sig-storage/csi-resizer:v2.2.0",
	"registry.k8s.io/sig-storage/livenessprobe:v2.19.0",
}

// TestImages: the chart names these and no others.
func TestImages(t *testing.T) {
	found := map[string]bool{}
	for _, w := range workloads(objects(t, manifest(t, nil))) {
		for _, c := range w.containers() {
			found[c.Image] = true
		}
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, upstream) {
		t.Errorf("the chart's images are\n%s\nallowed are\n%s", strings.Join(got, "\n"), strings.Join(upstream, "\n"))
	}
}

// TestSeaweedIsTheTestedOne: the image's version is that of the binary that storage/cluster runs.
func TestSeaweedIsTheTestedOne(t *testing.T) {
	text, err := os.ReadFile("../../storage/cluster/release.go")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`Version = "([0-9.]+)"`).FindSubmatch(text)
	if m == nil || !slices.Contains(upstream, "chrislusf/seaweedfs:"+string(m[1])+"_large_disk") {
		t.Errorf("storage/cluster runs SeaweedFS %s", m)
	}
}

// TestSameFlagsAsOnOneMachine: weed is started as storage/cluster starts it, whose flags stand in
// its golden file; only addresses and folders are others.
func TestSameFlagsAsOnOneMachine(t *testing.T) {
	text, err := os.ReadFile("../../storage/cluster/testdata/commands.golden")
	if err != nil {
		t.Fatal(err)
	}
	flags := func(args []string) map[string]string {
		m := map[string]string{}
		for _, a := range args {
			name, value, _ := strings.Cut(strings.TrimSpace(a), "=") // some have no value
			if strings.HasPrefix(name, "-") || regexp.MustCompile(`^[A-Z0-9_]+$`).MatchString(name) {
				m[name] = value
			}
		}
		return m
	}
	onOneMachine := map[string]map[string]string{}
	for section := range strings.SplitSeq("\n"+string(text), "\n  in ") {
		_, rest, ok := strings.Cut(section, "\n")
		name, lines, found := strings.Cut(strings.TrimLeft(rest, "\n"), "\n")
		if ok && found {
			onOneMachine[name] = flags(strings.Split(lines, "\n"))
		}
	}
	// Where they differ, since a pod is no machine.
	places := []string{"-ip", "-ip.bind", "-port", "-port.grpc", "-mdir", "-dir", "-master", "-defaultStoreDir", "-localSocket", "-filer", "-config", "-cert.file", "-key.file", "-defaultReplication", "HOME", "TMPDIR"}
	for _, w := range workloads(objects(t, manifest(t, values(t, "seaweedfs: {s3: {tls: true}}")))) {
		role, ours := strings.CutPrefix(w.name, "holdfast-")
		machine := onOneMachine[role]
		if role == "volume" {
			machine = onOneMachine["volume1"]
		}
		if !ours || machine == nil {
			continue
		}
		delete(onOneMachine, role)
		c := w.pod.Spec.Containers[0]
		pod := flags(c.Args)
		for _, e := range c.Env {
			pod[e.Name] = e.Value
		}
		for name, want := range machine {
			got, ok := pod[name]
			switch {
			case !ok:
				t.Errorf("%s: lacks %s=%s", role, name, want)
			case got != want && !slices.Contains(places, name) && name != "WEED_S3_SSE_KEK":
				t.Errorf("%s: has %s=%s, and %s on one machine", role, name, got, want)
			}
			delete(pod, name)
		}
		delete(pod, "POD_NAME")
		if len(pod) > 0 {
			t.Errorf("%s: has %v besides", role, pod)
		}
	}
	for _, role := range []string{"master", "filer", "s3"} {
		if _, left := onOneMachine[role]; left {
			t.Errorf("%s was not compared", role)
		}
	}
}

// TestDriver: what CSIDriver and the classes declare.
func TestDriver(t *testing.T) {
	each(t, func(t *testing.T, all []runtime.Object) {
		classes := map[string]*storagev1.StorageClass{}
		drivers := 0
		for _, o := range all {
			switch o := o.(type) {
			case *storagev1.CSIDriver:
				drivers++
				if *o.Spec.AttachRequired || !*o.Spec.PodInfoOnMount || *o.Spec.FSGroupPolicy != storagev1.FileFSGroupPolicy || !*o.Spec.StorageCapacity || o.Name != "csi.holdfast.io" {
					t.Errorf("CSIDriver %+v", o.Spec)
				}
			case *storagev1.StorageClass:
				classes[o.Name] = o
			}
		}
		if drivers != 1 || len(classes) != 2 {
			t.Fatalf("%d drivers, %d classes", drivers, len(classes))
		}
		const isDefault = "storageclass.kubernetes.io/is-default-class"
		retain := classes["holdfast-retain"]
		if *retain.ReclaimPolicy != corev1.PersistentVolumeReclaimRetain || retain.Parameters["onDelete"] != "retain" || retain.Annotations[isDefault] != "" {
			t.Errorf("holdfast-retain: %+v", retain)
		}
		if got, want := classes["holdfast"].Annotations[isDefault] == "true", strings.HasSuffix(t.Name(), "/full"); got != want {
			t.Errorf("holdfast is the default class: %v, want %v", got, want)
		}
	})
}

// TestStorageCapacity: CSIDriver's storageCapacity keeps pods waiting until somebody tells what
// is free, so the provisioner has to have all that it needs for that.
func TestStorageCapacity(t *testing.T) {
	each(t, func(t *testing.T, all []runtime.Object) {
		tells, may := false, map[string][]string{}
		for _, w := range workloads(all) {
			for _, c := range w.containers() {
				if c.Name != "provisioner" {
					continue
				}
				fields := map[string]string{}
				for _, e := range c.Env {
					if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
						fields[e.Name] = e.ValueFrom.FieldRef.FieldPath
					}
				}
				tells = fields["POD_NAME"] == "metadata.name" && fields["NAMESPACE"] == "metadata.namespace"
				for _, flag := range []string{"--enable-capacity", "--capacity-for-immediate-binding", "--capacity-ownerref-level=2", "--immediate-topology=false"} {
					if !slices.Contains(c.Args, flag) {
						t.Errorf("%s/%s: runs without %s", w.name, c.Name, flag)
					}
				}
			}
		}
		if !tells {
			t.Error("no provisioner that knows its pod and its namespace")
		}
		for _, o := range all {
			if role, ok := o.(*rbacv1.Role); ok && role.Name == "holdfast-controller" {
				for _, r := range role.Rules {
					for _, resource := range r.Resources {
						may[resource] = r.Verbs
					}
				}
			}
		}
		for resource, verbs := range map[string][]string{"csistoragecapacities": {"get", "list", "watch", "create", "update", "patch", "delete"}, "replicasets": {"get"}} {
			for _, verb := range verbs {
				if !slices.Contains(may[resource], verb) {
					t.Errorf("the provisioner may not %s %s", verb, resource)
				}
			}
		}
	})
}

// TestInlineVolumesAreBounded: by default, and as the administrator says.
func TestInlineVolumesAreBounded(t *testing.T) {
	for given, want := range map[string]string{"{}": "--inline-max-size=10Gi", `inlineVolumes: {maxSize: 2Ti}`: "--inline-max-size=2Ti", `inlineVolumes: {maxSize: ""}`: ""} {
		have := ""
		for _, w := range workloads(objects(t, manifest(t, values(t, given)))) {
			for _, c := range w.containers() {
				for _, arg := range c.Args {
					if w.name == "holdfast-node" && c.Name == "node" && strings.HasPrefix(arg, "--inline-max-size") {
						have = arg
					}
				}
			}
		}
		if have != want {
			t.Errorf("%s: the node service runs with %q, want %q", given, have, want)
		}
	}
}

// TestNetworkPolicies: nobody but the parts of the release comes to what is root of the cluster.
func TestNetworkPolicies(t *testing.T) {
	policies := map[string]*networkingv1.NetworkPolicy{}
	for _, o := range objects(t, manifest(t, nil)) {
		if p, ok := o.(*networkingv1.NetworkPolicy); ok {
			policies[p.Name] = p
		}
	}
	for _, role := range []string{"master", "volume", "filer", "s3"} {
		p := policies["holdfast-"+role]
		if p == nil {
			t.Errorf("%s: no policy", role)
			continue
		}
		for _, rule := range p.Spec.Ingress {
			open := len(rule.From) == 0
			s3 := role == "s3" && len(rule.Ports) == 1 && rule.Ports[0].Port.IntValue() == 8333
			if open != s3 {
				t.Errorf("%s: ports %v are open to everybody: %v", role, rule.Ports, open)
			}
		}
	}
}

// TestKeeperStays: an upgrade replaces no keeper by itself.
func TestKeeperStays(t *testing.T) {
	each(t, func(t *testing.T, all []runtime.Object) {
		for _, o := range all {
			if d, ok := o.(*appsv1.DaemonSet); ok {
				want := appsv1.RollingUpdateDaemonSetStrategyType
				if d.Name == "holdfast-keeper" {
					want = appsv1.OnDeleteDaemonSetStrategyType
				}
				if d.Spec.UpdateStrategy.Type != want {
					t.Errorf("%s: is updated %s", d.Name, d.Spec.UpdateStrategy.Type)
				}
			}
		}
	})
}

// TestDataStays: no claim goes with the release.
func TestDataStays(t *testing.T) {
	each(t, func(t *testing.T, all []runtime.Object) {
		for _, o := range all {
			switch o := o.(type) {
			case *appsv1.StatefulSet:
				if len(o.Spec.VolumeClaimTemplates) == 0 {
					continue
				}
				p := o.Spec.PersistentVolumeClaimRetentionPolicy
				if p == nil || p.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType || p.WhenScaled != p.WhenDeleted {
					t.Errorf("%s: its claims go with it", o.Name)
				}
			case *corev1.PersistentVolume:
				if o.Annotations["helm.sh/resource-policy"] != "keep" || o.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
					t.Errorf("PersistentVolume %s: goes with the release or its claim", o.Name)
				}
				if o.Spec.NodeAffinity == nil {
					t.Errorf("PersistentVolume %s: its pod may go to a node that has nothing", o.Name)
				}
			}
		}
	})
}

// TestStartupTaintIsTolerated: a cluster whose first nodes have it comes up all the same.
func TestStartupTaintIsTolerated(t *testing.T) {
	taint := corev1.Taint{Key: "holdfast.io/agent-not-ready", Effect: corev1.TaintEffectNoSchedule}
	for _, w := range workloads(objects(t, manifest(t, cases(t)["full"]))) {
		if !slices.ContainsFunc(w.pod.Spec.Tolerations, func(k corev1.Toleration) bool {
			return (k.Key == taint.Key || k.Key == "") && k.Operator == corev1.TolerationOpExists
		}) {
			t.Errorf("%s: does not tolerate %s", w.name, taint.Key)
		}
	}
}

// TestUpgradeRestartsLittle: a new version of Holdfast restarts no part of SeaweedFS.
func TestUpgradeRestartsLittle(t *testing.T) {
	storage := func(version string) map[string]string {
		files, err := render(nil, func(m *chart.Metadata) { m.Version, m.AppVersion = version, version })
		if err != nil {
			t.Fatal(err)
		}
		specs := map[string]string{}
		for _, o := range objects(t, files["holdfast/templates/seaweedfs.yaml"]) {
			if s, ok := o.(*appsv1.StatefulSet); ok {
				specs[s.Name] = s.Spec.Template.String()
			}
		}
		return specs
	}
	if before, after := storage("1.0.0"), storage("2.0.0"); len(before) != 4 || !maps.Equal(before, after) {
		t.Error("SeaweedFS is restarted by an upgrade of Holdfast")
	}
}

// TestCompanionMayDoWhatItNeeds: the chart gives it all the rights that its own tests run it
// with (driver/kube/companion/rbac.yaml).
func TestCompanionMayDoWhatItNeeds(t *testing.T) {
	text, err := os.ReadFile("../../driver/kube/companion/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules := func(all []runtime.Object) (everywhere, here, secrets []rbacv1.PolicyRule) {
		for _, o := range all {
			switch o := o.(type) {
			case *rbacv1.ClusterRole:
				if strings.HasSuffix(o.Name, "-s3-secrets") {
					secrets = append(secrets, o.Rules...)
				} else {
					everywhere = append(everywhere, o.Rules...)
				}
			case *rbacv1.Role:
				switch o.Name {
				case "holdfast-s3-secrets":
					secrets = append(secrets, o.Rules...)
				case "holdfast-controller", "holdfast-companion":
					here = append(here, o.Rules...)
				}
			}
		}
		return everywhere, here, secrets
	}
	covered := func(want rbacv1.PolicyRule, given []rbacv1.PolicyRule) {
		for _, resource := range want.Resources {
			for _, verb := range want.Verbs {
				if !slices.ContainsFunc(given, func(r rbacv1.PolicyRule) bool {
					return slices.Equal(r.APIGroups, want.APIGroups) && slices.Contains(r.Resources, resource) && slices.Contains(r.Verbs, verb) && len(r.ResourceNames) == 0
				}) {
					t.Errorf("the chart does not let it %s %s", verb, resource)
				}
			}
		}
	}
	wantEverywhere, wantHere, wantSecrets := rules(objects(t, string(text)))
	if len(wantEverywhere) == 0 || len(wantHere) == 0 || len(wantSecrets) == 0 {
		t.Fatalf("%d, %d and %d rules in rbac.yaml", len(wantEverywhere), len(wantHere), len(wantSecrets))
	}
	everywhere, here, secrets := rules(objects(t, manifest(t, cases(t)["full"])))
	for _, w := range wantEverywhere {
		covered(w, everywhere)
	}
	for _, w := range wantHere {
		covered(w, here)
	}
	for _, w := range wantSecrets {
		covered(w, secrets)
	}
}
