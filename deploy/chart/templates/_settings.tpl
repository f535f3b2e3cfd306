{{/*
What the manifests take from the configuration, with the defaults of the program.
Use: {{ $s := include "chandler.settings" . | fromYaml }}
*/}}
{{- define "chandler.settings" -}}
{{- if ne .Release.Namespace "chandler" }}
  {{- fail (printf "namespace %q: chandler is installed in namespace chandler, which its admission policies name. Add: --namespace chandler" .Release.Namespace) }}
{{- end }}
{{- $config := fromYaml .Values.config }}
{{- if or (hasKey $config "Error") (ne (toString $config.kind) "Config") }}
  {{- fail "config: want a configuration file, see `chandler check`" }}
{{- end }}
{{- $scraper := $config.scraper | default dict }}
{{- $leader := $config.leader | default dict }}
{{- $pullSecrets := $leader.pullSecrets | default dict }}
{{- $serving := $config.serving | default dict }}
{{- $signer := $scraper.signerName | default "kubernetes.io/kube-apiserver-client" }}
{{- $name := $scraper.commonName | default "system:serviceaccount:openshift-monitoring:prometheus-k8s" }}
{{- $leads := ne (toString $leader.enabled) "false" }}
{{- if and .Values.leader.split $leads }}
  {{- fail "leader.split: the agents must not lead beside the Deployment: set leader.enabled: false in config" }}
{{- end }}
{{- $policies := "" }}
{{- if .Values.scraperPolicies }}
  {{- $policies = .Values.scraperPolicies }}
{{- else if ne $name "system:serviceaccount:openshift-monitoring:prometheus-k8s" }}
  {{- fail (printf "scraper.commonName %q: print the policies that go with config, and add: --set-file scraperPolicies=FILE (chandler policy --config CONFIG > FILE)" $name) }}
{{- else if eq $signer "kubernetes.io/kube-apiserver-client" }}
  {{- $policies = .Files.Get "files/csrapproval-policies.yaml" }}
{{- else if eq $signer "chandler.dev/scraper-client" }}
  {{- $policies = .Files.Get "files/csrapproval-policies-own.yaml" }}
{{- else }}
  {{- fail (printf "scraper.signerName %q: print the policies that go with config, and add: --set-file scraperPolicies=FILE (chandler policy --config CONFIG > FILE)" $signer) }}
{{- end }}
{{- $keys := $pullSecrets.hostNamespace | default "ci-cd" }}
{{- if eq $keys "chandler" }}
  {{- fail "config, leader.pullSecrets.hostNamespace: chandler's own namespace holds more than registries' keys, and the leader reads every Secret of the one named here. Name another, such as chandler-registries" }}
{{- else if and .Values.hostNamespace.create (regexMatch "^(default|kube-.*)$" $keys) }}
  {{- fail (printf "config, leader.pullSecrets.hostNamespace %q: the chart makes that namespace, and this one is the cluster's. Name another, such as chandler-registries, since the leader reads every Secret of it; or set hostNamespace.create=false" $keys) }}
{{- end }}
{{- $mounts := list }}
{{- range $name, $secret := .Values.awsSecrets }}
  {{- $mounts = append $mounts (printf "/etc/chandler/aws/%s" $name) }}
{{- end }}
{{- range .Values.agent.extraVolumeMounts }}
  {{- $mounts = append $mounts .mountPath }}
{{- end }}
{{- range $entry := $config.awsCredentials }}
  {{- $found := false }}
  {{- range $mounts }}
    {{- $found = or $found (hasPrefix (printf "%s/" .) (printf "%s/" $entry.source)) }}
  {{- end }}
  {{- if not $found }}
    {{- fail (printf "config, awsCredentials %q: no value mounts anything at its source %q. Mount a Secret at /etc/chandler/aws/%s with awsSecrets.%s=SECRET, or something else with agent.extraVolumes and agent.extraVolumeMounts" $entry.name $entry.source $entry.name $entry.name) }}
  {{- end }}
{{- end }}
{{- $health := $serving.healthAddress | default ":9465" }}
{{- $foreign := ne (int (($scraper.files | default dict).uid | default 0)) 0 }}
{{- range $config.awsCredentials }}
  {{- $foreign = or $foreign (ne (int ((.files | default dict).uid | default 0)) 0) }}
{{- end }}
hostDir: {{ $config.hostDir | default "/var/lib/chandler" }}
leads: {{ or $leads .Values.leader.split }}
election: {{ $leads }}
scraper: {{ ne (toString $scraper.enabled) "false" }}
signer: {{ $signer }}
ownSigner: {{ eq $signer "chandler.dev/scraper-client" }}
policies: {{ toJson $policies }}
pullSecrets: {{ ne (toString $pullSecrets.enabled) "false" }}
hostNamespace: {{ $keys }}
adopt: {{ $pullSecrets.adopt | default false }}
serviceAccounts: {{ toJson ($pullSecrets.patchServiceAccounts | default list) }}
podLogs: {{ ne (toString (($leader.podLogs | default dict).enabled)) "false" }}
clusterStatus: {{ ($leader.clusterStatus | default dict).enabled | default false }}
delegation: {{ $serving.delegation | default false }}
clusterClientCA: {{ ne (toString $serving.clusterClientCA) "false" }}
metricsPort: {{ if kindIs "invalid" $serving.address }}9464{{ else }}{{ last (splitList ":" $serving.address) | default "0" }}{{ end }}
healthPort: {{ last (splitList ":" $health) }}
loopback: {{ regexFind "^(localhost|127[.][0-9.]+|\\[::1\\]):" $health | trimSuffix ":" | trimAll "[]" | quote }}
{{- /* Files that belong to somebody else than root: to set their mode, and to read them again. */}}
capabilities: {{ if $foreign }}[CHOWN, FOWNER, DAC_READ_SEARCH]{{ else }}[CHOWN]{{ end }}
{{- end }}
{{/* Every object has these. Selectors do not follow them. */}}
{{- define "chandler.labels" -}}
app.kubernetes.io/part-of: chandler
{{- end }}
