{{/* What a schema cannot say: values that only together make no sense, and what is needed. */}}
{{- define "outrigger.checks" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: needed: where the image of packaging/container was pushed to" -}}
{{- end -}}
{{- if not .Values.config.workloadPools -}}
{{- fail "config.workloadPools: needed: prefixes that hosts get mesh addresses from, outside of those of pods, Services and nodes, such as [10.244.240.0/20]" -}}
{{- end -}}
{{- with .Values.service -}}
{{- if and (ne .type "ClusterIP") (eq .externalTrafficPolicy "Cluster") (not $.Values.config.proxies) -}}
{{- fail "service.externalTrafficPolicy: Cluster hides the hosts' addresses behind those of nodes, and no host could join: list these in config.proxies, or use Local" -}}
{{- end -}}
{{- if and (eq .type "ClusterIP") (or .nodePort .loadBalancerClass .loadBalancerSourceRanges) -}}
{{- fail "service: nodePort, loadBalancerClass and loadBalancerSourceRanges mean nothing with the type ClusterIP" -}}
{{- end -}}
{{- if and (eq .type "NodePort") (or .loadBalancerClass .loadBalancerSourceRanges) -}}
{{- fail "service: loadBalancerClass and loadBalancerSourceRanges mean nothing with the type NodePort" -}}
{{- end -}}
{{- end -}}
{{- if and (eq (default "" .Values.config.ca.backend) "cert-manager") (not (dig "certManager" "namespace" "" .Values.config.ca)) -}}
{{- fail "config.ca.certManager.namespace: needed: where certificate requests are made" -}}
{{- end -}}
{{- if and (eq (default "" .Values.config.ca.backend) "vault") .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
{{- fail "networkPolicy.egress: needed with config.ca.backend vault: a rule to Vault, and one to the cluster's DNS where Vault has a name" -}}
{{- end -}}
{{- with .Values.transit -}}
{{- if and .nodes.enabled (not .enabled) -}}
{{- fail "transit.nodes.enabled: means nothing without transit.enabled: tunnels of these nodes go to transit nodes" -}}
{{- end -}}
{{- if .enabled -}}
{{- if not .image.repository -}}
{{- fail "transit.image.repository: needed: where the agent's image of packaging/container was pushed to" -}}
{{- end -}}
{{- if not (or .image.tag .image.digest) -}}
{{- fail "transit.image.tag: needed, or a digest: it does not follow the chart's, so that an upgrade of the gateway restarts no agent" -}}
{{- end -}}
{{- if not .nodeSelector -}}
{{- fail "transit.nodeSelector: needed: the labels of nodes that are transit nodes" -}}
{{- end -}}
{{- if and $.Values.networkPolicy.enabled $.Values.networkPolicy.hosts (not $.Values.networkPolicy.nodes) -}}
{{- fail "networkPolicy.nodes: needed with networkPolicy.hosts: from where agents of the cluster's nodes connect" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.persistence.enabled (gt (int .Values.replicas) 1) -}}
{{- fail "persistence.enabled: a volume is one replica's: set replicas to 1, or leave it off, since the state of record is in the API" -}}
{{- end -}}
{{- if and .Values.persistence.existingClaim (not .Values.persistence.enabled) -}}
{{- fail "persistence.existingClaim: means nothing without persistence.enabled" -}}
{{- end -}}
{{- with .Values.companions -}}
{{- if and .enabled (not .namespaces) -}}
{{- fail "companions.namespaces: needed: the namespaces in which NetworkPolicies may be written; there is no `all`" -}}
{{- end -}}
{{- if and .enabled (not .sourceAddresses) -}}
{{- fail "companions.sourceAddresses: needed: preserved where pods and hosts see each other's own addresses, else masqueraded" -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: needed where the chart makes none" -}}
{{- end -}}
{{- end }}
