-- A platform on which several agents talk to leads together. Every key is a uuid.
-- Can be run again at any time. Runs as one simple query; no psql commands.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- it was there, or another session was quicker
        END;
    END LOOP;
    FOR wanted IN SELECT name FROM pg_available_extensions WHERE name = 'uuid-ossp' LOOP
        EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA public', wanted);
    END LOOP;
END $$;

DO $$ BEGIN
    CREATE TYPE lead_status AS ENUM ('new', 'contacted', 'qualified', 'proposal', 'won', 'lost');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN
    CREATE TYPE workflow_status AS ENUM ('pending', 'running', 'completed', 'failed', 'cancelled');
EXCEPTION WHEN duplicate_object THEN NULL; END $$;

CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END $$;

-- Who is asking, as the API passes it on.
CREATE OR REPLACE FUNCTION current_profile() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;

CREATE TABLE IF NOT EXISTS profiles (
    id           uuid PRIMARY KEY,
    email        text NOT NULL UNIQUE,
    display_name text,
    avatar       bytea,
    settings     jsonb NOT NULL DEFAULT '{}',
    last_seen    cidr,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS conversations (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    profile_id  uuid NOT NULL REFERENCES profiles ON DELETE CASCADE,
    title       text,
    channel     text NOT NULL DEFAULT 'web',
    metadata    jsonb NOT NULL DEFAULT '{}',
    archived_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS conversations_metadata_idx ON conversations USING gin (metadata);
CREATE INDEX IF NOT EXISTS conversations_profile_idx ON conversations (profile_id, created_at DESC);

CREATE TABLE IF NOT EXISTS messages (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id   uuid NOT NULL REFERENCES conversations ON DELETE CASCADE ON UPDATE CASCADE,
    parent_message_id uuid REFERENCES messages ON DELETE SET NULL ON UPDATE CASCADE,
    role              text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content           text NOT NULL,
    content_length    integer GENERATED ALWAYS AS (length(content)) STORED,
    metadata          jsonb,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS messages_conversation_idx ON messages (conversation_id, created_at);
CREATE INDEX IF NOT EXISTS messages_parent_idx ON messages (parent_message_id);
CREATE INDEX IF NOT EXISTS messages_metadata_idx ON messages USING gin (metadata jsonb_path_ops);

CREATE TABLE IF NOT EXISTS leads (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id     uuid REFERENCES conversations ON DELETE SET NULL ON UPDATE CASCADE,
    name                text,
    email               text,
    company             text,
    status              lead_status NOT NULL DEFAULT 'new',
    previous_statuses   lead_status[] NOT NULL DEFAULT '{}',
    score               double precision,
    budget              numrange,
    services_interested text[] NOT NULL DEFAULT '{}',
    notes               text,
    contacted_at        timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS leads_services_idx ON leads USING gin (services_interested);
CREATE INDEX IF NOT EXISTS leads_status_idx ON leads (status);

CREATE TABLE IF NOT EXISTS workflow_executions (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id      uuid REFERENCES conversations ON DELETE CASCADE ON UPDATE CASCADE,
    name                 text NOT NULL,
    status               workflow_status NOT NULL DEFAULT 'pending',
    participating_agents text[] NOT NULL DEFAULT '{}',
    plan                 jsonb NOT NULL DEFAULT '{}',
    results              jsonb,
    error                text,
    started_at           timestamptz,
    finished_at          timestamptz,
    duration             interval GENERATED ALWAYS AS (finished_at - started_at) STORED,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS workflow_executions_plan_idx ON workflow_executions USING gin (plan);
CREATE INDEX IF NOT EXISTS workflow_executions_results_idx ON workflow_executions USING gin (results);

CREATE TABLE IF NOT EXISTS agent_messages (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workflow_id  uuid NOT NULL REFERENCES workflow_executions ON DELETE CASCADE,
    number       bigint GENERATED ALWAYS AS IDENTITY,
    sender       text NOT NULL,
    receiver     text,
    message_type text NOT NULL DEFAULT 'task',
    payload      jsonb NOT NULL DEFAULT '{}',
    document     text,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS agent_messages_workflow_idx ON agent_messages (workflow_id, number);

CREATE TABLE IF NOT EXISTS shared_memory (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id uuid NOT NULL REFERENCES conversations ON DELETE CASCADE ON UPDATE CASCADE,
    memory_key      text NOT NULL,
    scope           text NOT NULL DEFAULT 'conversation',
    value           jsonb NOT NULL,
    written_by      text,
    expires_at      timestamptz NOT NULL DEFAULT 'infinity',
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (conversation_id, memory_key, scope)
);
CREATE INDEX IF NOT EXISTS shared_memory_value_idx ON shared_memory USING gin (value);

CREATE OR REPLACE VIEW lead_funnel AS
    SELECT status, count(*) AS leads, avg(score) AS mean_score,
           count(*) FILTER (WHERE contacted_at IS NOT NULL) AS contacted
      FROM leads
     GROUP BY status;

CREATE OR REPLACE VIEW conversation_activity AS
    SELECT c.id, c.title, count(m.id) AS messages, max(m.created_at) AS last_message_at,
           (SELECT count(*) FROM workflow_executions w WHERE w.conversation_id = c.id) AS workflows
      FROM conversations c
      LEFT JOIN messages m ON m.conversation_id = c.id
     GROUP BY c.id;

CREATE OR REPLACE VIEW agent_load AS
    SELECT agent, count(*) AS workflows, count(*) FILTER (WHERE w.status = 'failed') AS failed
      FROM workflow_executions w, unnest(w.participating_agents) AS agent
     GROUP BY agent;

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['profiles', 'conversations', 'messages', 'leads', 'workflow_executions',
                             'agent_messages', 'shared_memory'] LOOP
        IF t <> 'agent_messages' THEN
            EXECUTE format(
                'CREATE OR REPLACE TRIGGER %I BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()',
                'update_' || t || '_updated_at', t
            );
        END IF;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('DROP POLICY IF EXISTS "Service role has full access" ON %I', t);
        EXECUTE format(
            'CREATE POLICY "Service role has full access" ON %I TO service_role USING (true) WITH CHECK (true)', t
        );
        EXECUTE format('GRANT ALL ON %I TO service_role', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO authenticated', t);
    END LOOP;
END $$;

DROP POLICY IF EXISTS "Users see their own profile" ON profiles;
CREATE POLICY "Users see their own profile" ON profiles TO authenticated
    USING (id = current_profile()) WITH CHECK (id = current_profile());
DROP POLICY IF EXISTS "Users see their own conversations" ON conversations;
CREATE POLICY "Users see their own conversations" ON conversations TO authenticated
    USING (profile_id = current_profile()) WITH CHECK (profile_id = current_profile());
DROP POLICY IF EXISTS "Users see messages of their conversations" ON messages;
CREATE POLICY "Users see messages of their conversations" ON messages FOR SELECT TO authenticated
    USING (EXISTS (SELECT FROM conversations c WHERE c.id = conversation_id AND c.profile_id = current_profile()));
DROP POLICY IF EXISTS "Visitors may leave a lead" ON leads;
CREATE POLICY "Visitors may leave a lead" ON leads FOR INSERT TO anon WITH CHECK (status = 'new');
GRANT INSERT ON leads TO anon;
