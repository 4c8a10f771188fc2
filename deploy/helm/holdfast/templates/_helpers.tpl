{{/* The names of all objects begin with it. */}}
{{- define "holdfast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object; (list . "component"). */}}
{{- define "holdfast.labels" -}}
{{- $ := index . 0 -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/part-of: holdfast
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod; (list . "component"). No version: a new one alone must not restart anything. */}}
{{- define "holdfast.podLabels" -}}
{{- $ := index . 0 -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/part-of: holdfast
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What selects pods; (list . "component"). It can never change. */}}
{{- define "holdfast.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "holdfast.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "holdfast.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ .name }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Users. Each process that needs no root has one of its own, since the node's folders and the
     keeper tell them apart by it. 65532 is the image's. */}}
{{- define "holdfast.uid.mounter" -}}65531{{- end -}}
{{- define "holdfast.uid.weed" -}}65530{{- end -}}
{{- define "holdfast.uid.service" -}}65532{{- end -}}

{{- define "holdfast.secret" -}}
{{- $ := index . 0 -}}{{- $part := index . 1 -}}
{{- if $.Values.seaweedfs.enabled -}}
{{ include "holdfast.fullname" $ }}-{{ $part }}
{{- else -}}
{{- $key := $part -}}{{- if eq $part "s3-admin" -}}{{- $key = "admin" -}}{{- end -}}
{{- required (printf "seaweedfs.external.secrets.%s is needed when seaweedfs.enabled is false" $key) (index $.Values.seaweedfs.external.secrets $key) -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.filer" -}}
{{- if .Values.seaweedfs.enabled -}}
{{ include "holdfast.fullname" . }}-filer.{{ .Release.Namespace }}.svc:18888
{{- else -}}
{{- required "seaweedfs.external.filer is needed when seaweedfs.enabled is false: host:port of the filer's gRPC" .Values.seaweedfs.external.filer -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.s3" -}}
{{- if .Values.seaweedfs.enabled -}}
http{{ if .Values.seaweedfs.s3.tls }}s{{ end }}://{{ include "holdfast.fullname" . }}-s3.{{ .Release.Namespace }}.svc:8333
{{- else -}}
{{- required "seaweedfs.external.s3Endpoint is needed when seaweedfs.enabled is false: the URL of the S3 gateway" .Values.seaweedfs.external.s3Endpoint -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.replication" -}}
{{- if .Values.seaweedfs.replication -}}
{{- .Values.seaweedfs.replication -}}
{{- else if ge (int .Values.seaweedfs.volume.replicas) 3 -}}001
{{- else -}}000
{{- end -}}
{{- end -}}

{{/* Of a container that is neither root nor privileged. */}}
{{- define "holdfast.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Of a container that is root, since the kubelet's folders are root's, and can do nothing else. */}}
{{- define "holdfast.powerless" -}}
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Pods of a component on different nodes, as far as there are some; (list . "component"). */}}
{{- define "holdfast.apart" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "holdfast.selector" . | nindent 12 }}
{{- end -}}

{{/* Where a pod runs; (dict "root" $ "v" values "default" affinity). */}}
{{- define "holdfast.placement" -}}
{{- with .v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := .v.tolerations }}
{{- if and .root.Values.node.startupTaint.enabled (not (has (dict "operator" "Exists") $tolerations)) }}
{{- /* Or the first nodes of a cluster would wait for pods that wait for them. */}}
{{- $tolerations = append $tolerations (dict "key" "holdfast.io/agent-not-ready" "operator" "Exists") }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .v.affinity }}
affinity:
  {{- toYaml .v.affinity | nindent 2 }}
{{- else if .default }}
affinity:
  {{- .default | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What leads to the API server, for those containers of a pod that ask it. */}}
{{- define "holdfast.api.volume" -}}
name: api
projected:
  defaultMode: 0444
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap:
        name: kube-root-ca.crt
        items: [{key: ca.crt, path: ca.crt}]
    - downwardAPI:
        items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end -}}
{{- define "holdfast.api.mount" -}}
name: api
mountPath: /var/run/secrets/kubernetes.io/serviceaccount
readOnly: true
{{- end -}}
