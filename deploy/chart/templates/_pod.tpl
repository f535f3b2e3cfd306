{{/* What the pods of the agents and of the leader have in common. */}}
{{- define "chandler.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "chandler.container" -}}
{{- $s := include "chandler.settings" .root | fromYaml -}}
{{- $names := keys (.part.podLabels | default dict) (.part.podAnnotations | default dict) -}}
{{- range .part.env }}
  {{- $names = append $names .name }}
{{- end }}
{{- $own := list "NODE_NAME" "POD_NAME" "POD_NAMESPACE" "MEMORY_LIMIT" "app.kubernetes.io/name" "app.kubernetes.io/part-of" }}
{{- if and .root.Values.openshift.enabled (eq .command "agent") }}
  {{- $own = append $own "openshift.io/required-scc" }}
{{- end }}
{{- range $own }}
  {{- if has . $names }}
    {{- fail (printf "%s: the chart sets it itself; take it out of env, podLabels or podAnnotations" .) }}
  {{- end }}
{{- end }}
{{- if and $s.loopback (not .part.hostNetwork) }}
  {{- fail (printf "config, serving.healthAddress: kubelet asks the %s by the pod's address, where nothing listens on %s, and ends it again and again. Name a port alone, such as \":9465\"; loopback is for agent.hostNetwork=true without leader.split" .command $s.loopback) }}
{{- end -}}
image: {{ include "chandler.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args:
- {{ .command }}
- --config=/etc/chandler/config/config.yaml
- --log-level={{ .root.Values.log.level }}
- --log-format={{ .root.Values.log.format }}
env:
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: MEMORY_LIMIT
  valueFrom:
    resourceFieldRef:
      resource: limits.memory
{{- with .part.env }}
{{ toYaml . }}
{{- end }}
ports:
{{- if $s.metricsPort }}
- name: metrics
  containerPort: {{ $s.metricsPort }}
{{- end }}
- name: health
  containerPort: {{ $s.healthPort }}
livenessProbe:
  httpGet:
    {{- with $s.loopback }}
    host: {{ quote . }}
    {{- end }}
    path: /healthz
    port: health
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    {{- with $s.loopback }}
    host: {{ quote . }}
    {{- end }}
    path: /readyz
    port: health
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- with .part.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "chandler.scheduling" -}}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "chandler.mounts" -}}
{{- $s := include "chandler.settings" .root | fromYaml -}}
- name: config
  mountPath: /etc/chandler/config
  readOnly: true
- name: token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- if $s.ownSigner }}
- name: scraper-ca
  mountPath: /etc/chandler/scraper-ca
  readOnly: true
{{- end }}
{{- if .root.Values.openshift.enabled }}
- name: serving
  mountPath: /etc/chandler/serving
  readOnly: true
{{- end }}
{{- with .part.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "chandler.volumes" -}}
{{- $s := include "chandler.settings" .root | fromYaml -}}
- name: config
  configMap:
    name: chandler
# The pod's token. Asked for by ourselves it lives an hour; the one that every pod gets
# unasked is valid for a year on most clusters.
- name: token
  projected:
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3600
    - configMap:
        name: kube-root-ca.crt
        items:
        - key: ca.crt
          path: ca.crt
    - downwardAPI:
        items:
        - path: namespace
          fieldRef:
            fieldPath: metadata.namespace
{{- if $s.ownSigner }}
# Made by the leader. By it scrapers of /metrics are known.
- name: scraper-ca
  configMap:
    name: chandler-scraper-ca
    optional: true
{{- end }}
{{- if .root.Values.openshift.enabled }}
# Made by OpenShift's service CA, for the annotation of Service chandler.
- name: serving
  secret:
    secretName: chandler-serving
    optional: true
{{- end }}
{{- with .part.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
