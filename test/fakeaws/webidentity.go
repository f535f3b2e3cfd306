package fakeaws

import (
	"encoding/xml"
	"errors"
	"net/http"
)

type webIdentityResult struct {
	XMLName                     xml.Name `xml:"AssumeRoleWithWebIdentityResult"`
	SubjectFromWebIdentityToken string
	Audience                    string
	AssumedRoleUser             assumedRoleUser
	Credentials                 credentialsElement
	Provider                    string
}

// assumeRoleWithWebIdentity is IRSA: unsigned, the token is the proof.
func (s *Server) assumeRoleWithWebIdentity(r request) (any, *apiError) {
	form := r.form()
	role, known := s.role(form.Get("RoleArn"))
	if !known || role.WebIdentity == nil {
		return nil, &apiError{http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"}
	}
	subject, err := role.WebIdentity(form.Get("WebIdentityToken"))
	switch {
	case errors.Is(err, ErrWebIdentityExpired):
		return nil, &apiError{http.StatusBadRequest, "ExpiredTokenException", "Token expired"}
	case err != nil:
		return nil, &apiError{http.StatusBadRequest, "InvalidIdentityToken", "The web identity token is not valid"}
	}
	keys, refused := s.openSession(role, form)
	if refused != nil {
		return nil, refused
	}
	return webIdentityResult{
		SubjectFromWebIdentityToken: subject,
		Audience:                    "sts.amazonaws.com",
		AssumedRoleUser:             assumedRoleUser{AssumedRoleID: keys.userID(), Arn: keys.ARN},
		Credentials:                 keys.element(),
		Provider:                    "https://oidc.fakeaws.invalid",
	}, nil
}
