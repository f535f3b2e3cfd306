package pullsecrets

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Values of the label result of chandler_pullsecrets_token_requests_total.
const (
	resultGranted   = "granted"
	resultThrottled = "throttled"
	resultDenied    = "denied" // wrong keys, missing permission, no such role
	resultFailed    = "failed" // not reachable, broken, or no usable answer
)

// awsError is an error of AWS in words that are safe to log. It does not wrap
// the SDK's: the answer to a wrong signature quotes the request with its session
// token, and whoever unwraps an error may print it.
type awsError struct {
	text   string
	result string
}

// Error implements error.
func (e *awsError) Error() string { return e.text }

// maxMessage cuts messages of AWS, which name the caller and what it lacks.
const maxMessage = 300

// describe returns err in safe words, or nil. The end of a term stays what it is.
func describe(err error, id identity) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errNoToken) {
		return err
	}
	operation := "AWS"
	// The deepest one: the call that failed may be the one for credentials.
	if failed, ok := deepest[*smithy.OperationError](err); ok {
		operation = failed.ServiceID + " " + failed.OperationName
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &awsError{operation + ": no answer in time", resultFailed}
	}
	if refused, ok := deepest[smithy.APIError](err); ok {
		text := operation + ": " + refused.ErrorCode()
		if !strings.Contains(refused.ErrorCode(), "Signature") {
			text += ": " + safeMessage(refused.ErrorMessage(), id)
		}
		return &awsError{text, resultOf(refused, err)}
	}
	if unresolved, ok := deepest[*net.DNSError](err); ok {
		return &awsError{operation + ": " + describeLookup(unresolved), resultFailed}
	}
	if broken, ok := deepest[*net.OpError](err); ok {
		same := *broken
		same.Source = nil // has another port each time, and would make a new Event of it
		return &awsError{operation + ": " + same.Error(), resultFailed}
	}
	return &awsError{operation + ": " + safeMessage(innermost(err).Error(), id), resultFailed}
}

// describeLookup leaves out what the resolver was asked over, which differs each time.
func describeLookup(err *net.DNSError) string {
	switch {
	case err.IsNotFound:
		return "lookup " + err.Name + ": no such host"
	case err.IsTimeout:
		return "lookup " + err.Name + ": no answer in time"
	default:
		return "lookup " + err.Name + ": failed"
	}
}

// deepest finds the last error of a type in the chain.
func deepest[E error](err error) (found E, ok bool) {
	for {
		next, more := errors.AsType[E](err)
		if !more {
			return found, ok
		}
		found, ok = next, true
		if err = errors.Unwrap(next); err == nil {
			return found, ok
		}
	}
}

// innermost finds the cause below the SDK's layers, which repeat themselves.
func innermost(err error) error {
	for {
		below := errors.Unwrap(err)
		if below == nil {
			return err
		}
		err = below
	}
}

func safeMessage(message string, id identity) string {
	message, _, _ = strings.Cut(message, "\n")
	message = redact(message, id.keys.secret, id.keys.session, secret(id.role.ExternalID))
	return strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
}

func resultOf(refused smithy.APIError, err error) string {
	if _, throttled := retry.DefaultThrottleErrorCodes[refused.ErrorCode()]; throttled {
		return resultThrottled
	}
	answer, ok := deepest[*smithyhttp.ResponseError](err)
	if ok && answer.HTTPStatusCode() < http.StatusInternalServerError {
		return resultDenied
	}
	return resultFailed
}

// outcome names the result of a call for a token.
func outcome(err error) string {
	if err == nil {
		return resultGranted
	}
	if failed, ok := errors.AsType[*awsError](err); ok {
		return failed.result
	}
	return resultFailed
}
