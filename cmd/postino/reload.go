package main

import (
	"context"
	"errors"

	"postino/config"
	"postino/spool/submit"
)

// askToReload has the main goroutine reload, and waits for it.
func (svc *service) askToReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case svc.reloads <- answer:
		return <-answer
	case <-ctx.Done():
		return errors.New("the runner is ending")
	}
}

// reload takes the configuration anew and keeps the old one if that is wrong.
func (svc *service) reload() error {
	svc.manager.tell(reloading())
	defer func() { svc.manager.tell("READY=1", svc.statusLine()) }()
	c, err := svc.app.loadConfig()
	if err == nil {
		err = svc.runner.SetConfig(c)
	}
	if err != nil {
		svc.log.Error("configuration not reloaded, the old one stays", "err", err)
		return err
	}
	svc.config.Store(c)
	svc.intake.SetPolicy(policy(c))
	svc.log.Info("configuration reloaded", "mode", string(c.Mode))
	return nil
}

func policy(c *config.Config) submit.Policy {
	return submit.Policy{
		Hostname: c.Hostname, Domain: c.Domain,
		MaxMessageSize: int64(c.MaxMessageSize), MaxRecipients: c.Limits.MaxRecipients,
		PerUID: submit.Rate(c.Limits.PerUID), RecipientsPerUID: submit.Rate(c.Limits.RecipientsPerUID),
		From: submit.From{Envelope: rewriting(c.From.Envelope), Header: rewriting(c.From.Header), Address: c.From.Address, Name: c.From.Name,
			Generic: c.From.Generic, KeepAs: string(c.From.KeepAs)},
		LocalDomains: c.LocalDomains, AllowFrom: c.Limits.AllowFrom,
	}
}

func rewriting(r config.Rewrite) submit.Rewrite {
	if r == config.Qualify {
		return submit.Qualify
	}
	return submit.Rewrite(r)
}
