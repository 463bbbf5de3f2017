{{/* The name of objects: the release's, and the chart's if that is no part of it. */}}
{{- define "outrigger.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Names of what the cluster has once: the namespace keeps releases of the same name apart. */}}
{{- define "outrigger.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "outrigger.fullname" .) -}}
{{- end }}

{{- define "outrigger.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "outrigger.fullname" .) -}}
{{- end }}

{{/* What selects the gateway's pods; cannot change in an upgrade. */}}
{{- define "outrigger.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "outrigger.labels" -}}
{{ include "outrigger.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "outrigger.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The same for the process that keeps companions. */}}
{{- define "outrigger.companionsName" -}}
{{- printf "%s-companions" (include "outrigger.fullname" .) -}}
{{- end }}

{{- define "outrigger.companionsSelector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: companions
{{- end }}

{{- define "outrigger.companionsLabels" -}}
{{ include "outrigger.companionsSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}
