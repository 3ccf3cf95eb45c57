-- Users and their rights, without passwords.
GRANT USAGE ON *.* TO `mariadb.sys`@`localhost`;
GRANT SELECT, DELETE ON `mysql`.`global_priv` TO `mariadb.sys`@`localhost`;
GRANT ALL PRIVILEGES ON *.* TO `root`@`127.0.0.1` WITH GRANT OPTION;
GRANT PROXY ON ``@`%` TO `root`@`127.0.0.1` WITH GRANT OPTION;
GRANT ALL PRIVILEGES ON *.* TO `root`@`::1` WITH GRANT OPTION;
GRANT PROXY ON ``@`%` TO `root`@`::1` WITH GRANT OPTION;
GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION;
GRANT PROXY ON ``@`%` TO `root`@`localhost` WITH GRANT OPTION;
GRANT ALL PRIVILEGES ON *.* TO `root`@`vm` WITH GRANT OPTION;
GRANT PROXY ON ``@`%` TO `root`@`vm` WITH GRANT OPTION;
