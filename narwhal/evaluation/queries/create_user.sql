-- An account, for databases without an Auth server in front of them.
insert into auth.users (
    id, aud, role, email, email_confirmed_at, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
values (
    gen_random_uuid(), 'authenticated', 'authenticated', %(email)s, now(),
    '{"provider": "email", "providers": ["email"]}', '{}', now(), now()
)
returning id
