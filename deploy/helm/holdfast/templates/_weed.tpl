{{/*
A StatefulSet of weed, with its services. The flags, the environment and the files are those of
storage/cluster, which runs the same on one machine (chart_test.go compares them); only addresses
and folders differ. Arguments:
  root, role, replicas, v (the role's values), args, ports (name: number), memory (GOMEMLIMIT),
  grace (seconds), data (whether it keeps any), env
*/}}
{{- define "holdfast.weed" -}}
{{- $ := .root -}}
{{- $name := include "holdfast.fullname" $ -}}
{{- $ns := $.Release.Namespace -}}
{{- $uid := include "holdfast.uid.weed" $ -}}
{{- $role := .role -}}
{{- $me := printf "$(POD_NAME).%s-%s-peers.%s.svc" $name $role $ns -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}-{{ $role }}-peers
  namespace: {{ $ns }}
  labels:
    {{- include "holdfast.labels" (list $ $role) | nindent 4 }}
spec:
  clusterIP: None
  # Each is found by its name as soon as it runs: others wait for it to be ready, and it for them.
  publishNotReadyAddresses: true
  selector:
    {{- include "holdfast.selector" (list $ $role) | nindent 4 }}
  ports:
    {{- range $n, $p := .ports }}
    - name: {{ $n }}
      port: {{ $p }}
      targetPort: {{ $n }}
    {{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}-{{ $role }}
  namespace: {{ $ns }}
  labels:
    {{- include "holdfast.labels" (list $ $role) | nindent 4 }}
spec:
  serviceName: {{ $name }}-{{ $role }}-peers
  replicas: {{ .replicas }}
  podManagementPolicy: Parallel
  {{- if .data }}
  # What is the user's outlives the release.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  {{- end }}
  selector:
    matchLabels:
      {{- include "holdfast.selector" (list $ $role) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "holdfast.podLabels" (list $ $role) | nindent 8 }}
      {{- with .v.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ $name }}-seaweedfs
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .grace }}
      {{- include "holdfast.pullSecrets" $ | nindent 6 }}
      {{- include "holdfast.placement" (dict "root" $ "v" .v "default" (include "holdfast.apart" (list $ $role))) | nindent 6 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ $uid }}
        runAsGroup: {{ $uid }}
        fsGroup: {{ $uid }}
        # A volume of a million files is not walked through at each start.
        fsGroupChangePolicy: OnRootMismatch
      {{- if and .data .v.persistence.hostPath.path }}
      initContainers:
        # Kubernetes gives no folder of a node to a group.
        - name: folder
          image: {{ $.Values.seaweedfs.folderImage | default (include "holdfast.image" $) }}
          imagePullPolicy: {{ $.Values.image.pullPolicy }}
          args: [folder, /volume/data, --uid={{ $uid }}]
          securityContext:
            runAsNonRoot: false
            runAsUser: 0
            runAsGroup: 0
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
              add: [CHOWN]
            seccompProfile:
              type: RuntimeDefault
          volumeMounts:
            - name: data
              mountPath: /volume
      {{- end }}
      containers:
        - name: {{ $role }}
          image: {{ $.Values.seaweedfs.image.repository }}:{{ $.Values.seaweedfs.image.tag }}
          imagePullPolicy: {{ $.Values.seaweedfs.image.pullPolicy }}
          command: [/usr/bin/weed]
          # weed looks for its files here first, and finds every one that it would look for.
          workingDir: /etc/holdfast
          args:
            - -logtostderr=true
            - {{ $role }}
            - -ip={{ $me }}
            - -ip.bind=0.0.0.0
            {{- range .args }}
            - {{ . }}
            {{- end }}
          env:
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: HOME
              value: /etc/holdfast
            - name: TMPDIR
              value: /tmp
            - name: GOMEMLIMIT
              value: {{ .memory }}
            - name: WEED_TLS_CERT_REFRESH_INTERVAL
              value: 10s
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- range $n, $p := .ports }}
            - name: {{ $n }}
              containerPort: {{ $p }}
            {{- end }}
          {{- .probes | nindent 10 }}
          securityContext:
            {{- include "holdfast.restricted" $ | nindent 12 }}
          resources:
            {{- toYaml .v.resources | nindent 12 }}
          volumeMounts:
            - name: config
              mountPath: /etc/holdfast
              readOnly: true
            - name: tmp
              mountPath: /tmp
            {{- if .data }}
            - name: data
              mountPath: /data
              {{- if .v.persistence.hostPath.path }}
              subPath: data
              {{- end }}
            {{- end }}
      volumes:
        - name: config
          secret:
            secretName: {{ $name }}-{{ $role }}
            defaultMode: 0440
        - name: tmp
          emptyDir: {}
  {{- if .data }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "holdfast.selector" (list $ $role) | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- if .v.persistence.hostPath.path }}
        storageClassName: ""
        {{- else }}
        {{- with .v.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        {{- end }}
        resources:
          requests:
            storage: {{ .v.persistence.size }}
  {{- end }}
{{- if and .data .v.persistence.hostPath.path }}
{{- $nodes := .v.persistence.hostPath.nodes }}
{{- if not $nodes }}
{{- fail (printf "seaweedfs.%s.persistence.hostPath.nodes: the names of the nodes that keep the data are needed" $role) }}
{{- end }}
{{- $path := .v.persistence.hostPath.path }}
{{- $size := .v.persistence.size }}
{{- range $i := until (int .replicas) }}
---
# A folder of a node, for one claim: the pod that has it stays on the node.
apiVersion: v1
kind: PersistentVolume
metadata:
  name: {{ $name }}-{{ $role }}-{{ $i }}
  labels:
    {{- include "holdfast.labels" (list $ $role) | nindent 4 }}
  annotations:
    # It outlives the release, with what lies there.
    helm.sh/resource-policy: keep
spec:
  capacity:
    storage: {{ $size }}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef:
    apiVersion: v1
    kind: PersistentVolumeClaim
    namespace: {{ $ns }}
    name: data-{{ $name }}-{{ $role }}-{{ $i }}
  hostPath:
    path: {{ $path }}/{{ $name }}-{{ $role }}-{{ $i }}
    type: DirectoryOrCreate
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - key: kubernetes.io/hostname
              operator: In
              values: [{{ index $nodes (mod $i (len $nodes)) | quote }}]
{{- end }}
{{- end }}
{{- end -}}

{{/* A port that takes connections: weed's HTTPS and gRPC ask for certificates that the kubelet has not. */}}
{{- define "holdfast.weed.tcp" -}}
# A restart helps nobody who waits for another: it has no liveness but that of its process and port.
startupProbe:
  tcpSocket: {port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 300
readinessProbe:
  tcpSocket: {port: {{ . }}}
  periodSeconds: 3
  timeoutSeconds: 3
livenessProbe:
  tcpSocket: {port: {{ . }}}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}
