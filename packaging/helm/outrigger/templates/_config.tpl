{{/* gateway.yaml. What is empty is left to the gateway's default. As JSON: as YAML, Helm would write
large numbers with an exponent. */}}
{{- define "outrigger.config" -}}
{{- include "outrigger.checks" . -}}
{{- $host := ternary (printf "[%s]" .Values.bindAddress) .Values.bindAddress (contains ":" .Values.bindAddress) -}}
source: kubernetes
state: kubernetes
namespace: {{ .Release.Namespace | quote }}
stateDir: /var/lib/outrigger-gateway
listen: "{{ $host }}:7443"
replicaListen: "{{ $host }}:7444"
metricsListen: "{{ $host }}:9464"
{{- if .Values.transit.enabled }}
transitAccount: {{ printf "%s/%s" .Release.Namespace (include "outrigger.agentName" (dict "root" . "role" "transit")) | quote }}
{{- if .Values.transit.nodes.enabled }}
nodeAccount: {{ printf "%s/%s" .Release.Namespace (include "outrigger.agentName" (dict "root" . "role" "node")) | quote }}
{{- end }}
nodeGateways: {{ .Values.transit.gateways | default (list (printf "%s.%s.svc:%d" (include "outrigger.fullname" .) .Release.Namespace (int .Values.service.port))) | toJson }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if or $value (not (or (kindIs "string" $value) (kindIs "map" $value))) }}
{{ $key }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* companions.yaml, of the process that keeps companions. */}}
{{- define "outrigger.companionsConfig" -}}
{{- $host := ternary (printf "[%s]" .Values.bindAddress) .Values.bindAddress (contains ":" .Values.bindAddress) -}}
namespaces: {{ toJson .Values.companions.namespaces }}
sourceAddresses: {{ .Values.companions.sourceAddresses }}
maxBlocks: {{ toJson .Values.companions.maxBlocks }}
workloadPools: {{ toJson .Values.config.workloadPools }}
clusterName: {{ toJson .Values.config.clusterName }}
metricsListen: "{{ $host }}:9464"
logFormat: {{ .Values.config.logFormat }}
{{- with .Values.config.logLevel }}
logLevel: {{ toJson . }}
{{- end }}
{{- end }}
