{{/* The agent on nodes of the cluster, in one of its roles: transit or node. */}}
{{- define "outrigger.agentName" -}}
{{- printf "%s-%s" (include "outrigger.fullname" .root) .role -}}
{{- end }}

{{/* What selects its pods; cannot change in an upgrade. */}}
{{- define "outrigger.agentSelector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "outrigger.agentLabels" -}}
{{ include "outrigger.agentSelector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Without labels that change with each release of the chart: only another image, or another setting, is another pod. */}}
{{- define "outrigger.agentPodLabels" -}}
{{ include "outrigger.agentSelector" . }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "outrigger.agentImage" -}}
{{- with .Values.transit.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "outrigger.agent" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "outrigger.agentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "outrigger.agentLabels" . | nindent 4 }}
# It has no rights: its token shows the gateway which node the pod is on, and is asked for below.
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ include "outrigger.agentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "outrigger.agentLabels" . | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "outrigger.agentSelector" . | nindent 6 }}
  updateStrategy:
    {{- toYaml .root.Values.transit.updateStrategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "outrigger.agentPodLabels" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "outrigger.agentName" . }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      hostNetwork: true
      # Gateways have names of the cluster.
      dnsPolicy: ClusterFirstWithHostNet
      # What the kernel runs goes on without the pod.
      terminationGracePeriodSeconds: 10
      {{- with .root.Values.transit.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      priorityClassName: {{ .root.Values.transit.priorityClassName }}
      {{- if eq .role "transit" }}
      nodeSelector:
        {{- toYaml .root.Values.transit.nodeSelector | nindent 8 }}
      {{- else }}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            # One of the labels that make a transit node is missing.
            nodeSelectorTerms:
              {{- range $key, $value := .root.Values.transit.nodeSelector }}
              - matchExpressions:
                  - key: {{ $key | quote }}
                    operator: NotIn
                    values: [{{ $value | quote }}]
              {{- end }}
      {{- end }}
      {{- with .root.Values.transit.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: agent
          image: {{ include "outrigger.agentImage" .root | quote }}
          imagePullPolicy: {{ .root.Values.transit.image.pullPolicy }}
          args:
            - --account-token-file=/var/run/secrets/outrigger/token
            - --bootstrap-file=/etc/outrigger-bootstrap/bootstrap.json
            - --log-format=json
            {{- with .root.Values.transit.logLevel }}
            - {{ printf "--log-level=%s" . | quote }}
            {{- end }}
          # On the node's own loopback.
          livenessProbe:
            httpGet:
              host: 127.0.0.1
              path: /healthz
              port: 9465
            initialDelaySeconds: 30
            periodSeconds: 20
            timeoutSeconds: 5
          readinessProbe:
            httpGet:
              host: 127.0.0.1
              path: /readyz
              port: 9465
            periodSeconds: 5
            timeoutSeconds: 5
          resources:
            {{- toYaml .root.Values.transit.resources | nindent 12 }}
          securityContext:
            # Root, with what it needs to load programs, keep devices and routes, and (before Linux 5.11) lock memory.
            runAsUser: 0
            privileged: false
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
              add: [NET_ADMIN, NET_RAW, BPF, PERFMON, SYS_RESOURCE]
            seccompProfile:
              type: RuntimeDefault
            # The usual profile forbids to write anywhere below /sys/fs, where programs are pinned.
            appArmorProfile:
              type: Unconfined
          volumeMounts:
            - name: token
              mountPath: /var/run/secrets/outrigger
              readOnly: true
            - name: bootstrap
              mountPath: /etc/outrigger-bootstrap
              readOnly: true
            - name: bpf
              mountPath: /sys/fs/bpf
            - name: state
              mountPath: /var/lib/outrigger
            - name: run
              mountPath: /run/outrigger
            - name: machine-id
              mountPath: /etc/machine-id
              readOnly: true
      volumes:
        - name: token
          projected:
            defaultMode: 0400
            sources:
              - serviceAccountToken:
                  audience: outrigger
                  expirationSeconds: 3600
                  path: token
        # The gateway makes it; the agent waits for it.
        - name: bootstrap
          configMap:
            name: outrigger-bootstrap
            optional: true
        - name: bpf
          hostPath:
            path: /sys/fs/bpf
            type: Directory
        # Key, certificate and the last good state, which is enforced again after a reboot.
        - name: state
          hostPath:
            path: /var/lib/outrigger
            type: DirectoryOrCreate
        - name: run
          hostPath:
            path: /run/outrigger
            type: DirectoryOrCreate
        # The state is bound to the machine.
        - name: machine-id
          hostPath:
            path: /etc/machine-id
            type: File
{{- end }}
